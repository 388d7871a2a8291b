"""Learning to rank where the right order is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.ranking.calibrate import fold, platt
from components.ranking.examples import Examples, Sampling, join, sample
from components.ranking.held_out import judge
from components.ranking.model import Ranker, Sizes, Standardise, load, save
from components.ranking.train import Fitting, Material, fit, list_loss, predict

QUERIES, ROWS, CROSS, ITEMS = 60, 20, 3, 30
SIZES = Sizes(request=2, item=2, cross=CROSS, codes=(3, 3, 3, 3), hidden=(16, 8), side=8)


def known_world(seed: int = 0) -> Material:
    """Items had before are chosen where cross feature 0 is high, items never had where the item's own feature 1 is high."""
    rng = np.random.default_rng(seed)
    count = QUERIES * ROWS
    items = rng.normal(size=(ITEMS, 2)).astype(np.float32)
    item, cross, seen = rng.integers(0, ITEMS, count), rng.normal(size=(count, CROSS)), rng.random(count) < 0.5
    label = np.where(seen, cross[:, 0] > 1, items[item, 1] > 1)
    examples = Examples(
        request=rng.normal(size=(QUERIES, 2)).astype(np.float32),
        size=np.full(QUERIES, ROWS),
        cut=np.repeat(np.arange(2, dtype=np.int32), QUERIES // 2),
        discover=np.zeros(QUERIES, bool),
        targets=np.maximum(label.reshape(QUERIES, ROWS).sum(axis=1), 1).astype(np.int32),
        item=item.astype(np.int32),
        cross=cross.astype(np.float16),
        label=label,
        seen=seen,
        weight=np.ones(count, np.float32),
    )
    return Material(examples, np.cumsum(examples.size), item, items, np.zeros((ITEMS, 4), np.int32))


@pytest.fixture(scope="module")
def material() -> Material:
    return known_world()


@pytest.fixture(scope="module")
def fitted(material: Material) -> Ranker:
    return fit(SIZES, material, material.of_cuts(0, 1), Fitting(rate=1e-2, least_steps=150))


def test_the_right_order_is_found_on_queries_never_learnt_from(material: Material, fitted: Ranker):
    held_out = material.of_cuts(1, 2)
    logits = predict(fitted, material, held_out)
    at, _ = material.rows_of(held_out)
    right = material.examples.label[at]
    assert np.quantile(logits[right], 0.05) > np.quantile(logits[~right], 0.95)
    assert judge(material, held_out, logits)["all ndcg@10"] > 0.85 > 1.5 * judge(material, held_out, -logits)["all ndcg@10"]


def test_the_same_seed_gives_the_same_weights(material: Material):
    short = Fitting(epochs=1, least_steps=1)
    one, same, other = (fit(SIZES, material, material.of_cuts(0, 1), replace(short, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.top[-1].weight, other.top[-1].weight)


def test_saving_and_loading_changes_nothing(fitted: Ranker, tmp_path):
    save(fitted, tmp_path / "one.pt")
    save(load(tmp_path / "one.pt"), tmp_path / "two.pt")
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_precomputed_halves_and_the_whole_network_agree(fitted: Ranker):
    request, features, cross = torch.randn(1, 2), torch.randn(5, 2), torch.randn(5, CROSS)
    codes = torch.zeros(5, 4, dtype=torch.int64)
    with torch.no_grad():
        halves = fitted.score(fitted.user(request), fitted.item(features, codes), cross)
        assert torch.allclose(halves, fitted(request, features, codes, cross))


def test_an_unknown_code_is_read_as_code_zero(fitted: Ranker):
    features = torch.randn(1, 2)
    assert torch.equal(fitted.item(features, torch.full((1, 4), 99)), fitted.item(features, torch.zeros(1, 4, dtype=torch.int64)))


def test_a_missing_value_is_told_apart_from_the_mean():
    norm = Standardise(2, wide=True)
    norm.fit(np.array([[1.0, 5], [3, 5], [np.nan, 5]]))
    mean, missing = norm(torch.tensor([[2.0, 5.0], [float("nan"), 5.0]]))
    assert mean[:2].tolist() == [0, 0]
    assert missing[:2].tolist() == [0, 0]
    assert (mean[4], missing[4]) == (0, 1)
    assert norm(torch.tensor([[2.0, 700.0]]))[0, 1] == 0  # a column that never varied says nothing


def test_the_list_loss_is_that_of_a_loop_over_the_lists():
    rng = np.random.default_rng(1)
    logits, group = torch.tensor(rng.normal(size=9), dtype=torch.float32), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    label, weight = torch.tensor([1.0, 0, 0, 1, 0, 1, 0, 0, 0]), torch.tensor([1.0, 5, 2, 1, 3, 1, 1, 1, 4])
    losses = []
    for number in (0, 1):  # the third list has no label
        inside = group == number
        shares = weight[inside] * torch.exp(logits[inside]) / (weight[inside] * torch.exp(logits[inside])).sum() / weight[inside]
        losses.append(-torch.log(shares[label[inside] == 1]).mean())
    assert list_loss(logits, label, weight, group, 3).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


def test_platt_scaling_finds_the_distortion():
    rng = np.random.default_rng(0)
    true = rng.normal(-1, 2, 40_000)
    label = rng.random(len(true)) < 1 / (1 + np.exp(-true))
    a, b = platt(((true - 1) / 2).astype(np.float32), label, np.ones(len(true), np.float32))  # true = 2 x + 1
    assert (a, b) == (pytest.approx(2, abs=0.1), pytest.approx(1, abs=0.1))


def test_folded_scaling_is_in_the_logits(material: Material):
    model = Ranker(SIZES).eval()
    request, features, codes, cross = torch.randn(1, 2), torch.randn(4, 2), torch.zeros(4, 4, dtype=torch.int64), torch.randn(4, CROSS)
    with torch.no_grad():
        before = model(request, features, codes, cross)
        after = fold(model, ((2.0, 1.0), (0.5, -3.0)))(request, features, codes, cross)
    assert torch.allclose(after, before * torch.tensor([2.0, 0.5]) + torch.tensor([1.0, -3.0]), atol=1e-5)


def test_sampled_negatives_stand_for_all_and_positives_are_all_kept():
    must = np.zeros(1000, bool)
    must[[3, 500, 999]] = True
    kept, weight = sample(must, Sampling(top=20, rest=30, near=100), np.random.default_rng(0))
    assert len(kept) == 3 + 20 + 30
    assert set(kept) >= {3, 500, 999}
    assert weight.sum() == pytest.approx(1000)
    assert weight[np.isin(kept, [3, 500, 999])].tolist() == [1, 1, 1]


def test_without_any_example_the_reason_is_told(material: Material):
    empty = replace(material.examples, size=np.empty(0, np.int64))
    with pytest.raises(ValueError, match="no user has a label"):
        join([empty])


def test_each_epochs_mean_loss_is_heard_and_falls(material: Material) -> None:
    heard: list[float] = []
    fit(SIZES, material, material.of_cuts(0, 1), Fitting(rate=1e-2, least_steps=60), heard.append)
    assert len(heard) >= 6
    assert heard[-1] < heard[0]
