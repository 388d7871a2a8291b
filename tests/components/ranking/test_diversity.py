"""The diversity term: its value in lists whose answer is known, its gradient, and what learning with it does to a list."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.ranking.diversity import mean_logit, sameness


def alike(logits: list[float], kinds: list[int], queries: list[int] | None = None, weights: list[float] | None = None) -> float:
    group = torch.tensor(queries or [0] * len(logits))
    weight = torch.tensor(weights or [1.0] * len(logits))
    return float(sameness(torch.tensor(logits, dtype=torch.float32), weight, torch.tensor(kinds), group, int(group.max()) + 1))


@pytest.mark.parametrize(
    ("logits", "kinds", "known"),
    [
        ([0.0, 0.0], [1, 1], 1.0),
        ([0.0, 0.0], [1, 2], 0.5),
        ([3.0, 3.0, 3.0, 3.0], [1, 1, 2, 2], 0.5),
        ([np.log(3.0), 0.0], [1, 2], 0.625),  # 3/4 and 1/4: 9/16 + 1/16
        ([9.0, 0.0], [1, 2], 0.99975),  # one item alone has the list
        ([0.0, 0.0], [0, 0], 0.5),  # unknown is not a group
    ],
)
def test_a_list_is_as_alike_as_its_groups_share_it(logits: list[float], kinds: list[int], known: float) -> None:
    assert alike(logits, kinds) == pytest.approx(known, abs=1e-5)


def test_queries_are_averaged_and_an_example_counts_for_as_many_as_it_stands_for() -> None:
    assert alike([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 2], [0, 0, 1, 1]) == pytest.approx((1 + 0.5) / 2)
    assert alike([0.0, 0.0], [1, 2], weights=[3.0, 1.0]) == pytest.approx(0.625)


@given(st.lists(st.tuples(st.floats(-4, 4, width=32), st.integers(1, 3)), min_size=2, max_size=8))
def test_the_gradient_is_the_formula(items: list[tuple[float, int]]) -> None:
    """dD/dlogit_i = 2 p_i (mass of i's group - D), held against plain numpy."""
    logits = torch.tensor([one[0] for one in items], dtype=torch.float32, requires_grad=True)
    kinds = np.array([one[1] for one in items])
    sameness(logits, torch.ones(len(items)), torch.from_numpy(kinds), torch.zeros(len(items), dtype=torch.long), 1).backward()
    share = np.exp(logits.detach().numpy().astype(np.float64))
    share /= share.sum()
    mass = np.array([share[kinds == kind].sum() for kind in kinds])
    value = (mass * share).sum()
    assert logits.grad is not None
    assert logits.grad.numpy() == pytest.approx(2 * share * (mass - value), abs=1e-5)


def test_following_the_gradient_spreads_a_list_over_groups() -> None:
    logits = torch.tensor([2.0, 1.5, 1.0, 0.0], requires_grad=True)
    kinds, group, one = torch.tensor([1, 1, 1, 2]), torch.zeros(4, dtype=torch.long), torch.ones(4)
    before = float(sameness(logits.detach(), one, kinds, group, 1))
    for _ in range(50):
        (gradient,) = torch.autograd.grad(sameness(logits, one, kinds, group, 1), logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert float(sameness(logits.detach(), one, kinds, group, 1)) < before - 0.2
    assert logits[:3].tolist() == sorted(logits[:3].tolist(), reverse=True)  # within a group the order stays


def test_the_lists_logit_is_the_mean_of_the_judging_heads() -> None:
    found = mean_logit(torch.tensor([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([[True, True], [False, True]]), torch.tensor([0.75, 0.25]))
    assert found.tolist() == pytest.approx([1.5, 3.0])
