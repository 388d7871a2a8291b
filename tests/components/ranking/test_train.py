"""Learning to rank where the right order is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.ranking.calibrate import fold, platt, scaling_of
from components.ranking.examples import Examples, Sampling, join, sample
from components.ranking.held_out import judge
from components.ranking.model import Ranker, Sizes, Standardise, load, save
from components.ranking.train import Fitting, Material, check_finite, fit, head_loss, list_loss, predict
from serving.objectives import Objective
from serving.ranking.heads import Heads

QUERIES, ROWS, CROSS, ITEMS = 60, 20, 3, 30
HEADS = {"repeat": Objective("again positive", 1.0), "discover": Objective("first positive", 1.0, listwise=0.3)}
OBJECTIVES = tuple(HEADS.values())
SIZES = Sizes(request=2, item=2, cross=CROSS, codes=(3, 3, 3, 3), hidden=(16, 8), heads=tuple(HEADS), side=8)


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
        outcome=np.repeat(label[:, None], len(HEADS), axis=1).astype(np.float32),
        seen=seen,
        weight=np.ones(count, np.float32),
        slot=np.zeros(count, np.uint8),
    )
    return Material(examples, np.cumsum(examples.size), item, items, np.zeros((ITEMS, 4), np.int32), Heads.of(HEADS).judging(seen))


@pytest.fixture(scope="module")
def material() -> Material:
    return known_world()


@pytest.fixture(scope="module")
def fitted(material: Material) -> Ranker:
    return fit(SIZES, material, material.of_cuts(0, 1), Fitting(rate=1e-2, least_steps=150), OBJECTIVES)


def test_the_right_order_is_found_on_queries_never_learnt_from(material: Material, fitted: Ranker):
    held_out = material.of_cuts(1, 2)
    at, _ = material.rows_of(held_out)
    logits = Heads.of(HEADS).logit(predict(fitted, material, held_out), material.examples.seen[at])
    right = material.examples.label[at]
    assert np.quantile(logits[right], 0.05) > np.quantile(logits[~right], 0.95)
    assert judge(material, held_out, logits)["all ndcg@10"] > 0.85 > 1.5 * judge(material, held_out, -logits)["all ndcg@10"]


def test_a_query_of_which_nothing_was_chosen_says_nothing_of_an_order(material: Material, fitted: Ranker):
    held_out = material.of_cuts(1, 2)
    score = Heads.of(HEADS).logit(predict(fitted, material, held_out), material.examples.seen[material.rows_of(held_out)[0]])
    targets = np.array(material.examples.targets)
    targets[held_out[::2]] = 0  # all that came of them was a click
    some = replace(material, examples=replace(material.examples, targets=targets))
    told = judge(some, held_out, score)
    left = held_out[1::2]
    at, _ = material.rows_of(left)
    assert told == judge(material, left, Heads.of(HEADS).logit(predict(fitted, material, left), material.examples.seen[at]))
    assert np.isfinite(list(told.values())).all()


def test_the_same_seed_gives_the_same_weights(material: Material):
    short = Fitting(epochs=1, least_steps=1)
    one, same, other = (fit(SIZES, material, material.of_cuts(0, 1), replace(short, seed=seed), OBJECTIVES) for seed in (3, 3, 4))
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
    a, b = platt(((true - 1) / 2).astype(np.float32), label.astype(float), 1.0 - label, np.ones(len(true), np.float32))  # true = 2 x + 1
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
    fit(SIZES, material, material.of_cuts(0, 1), Fitting(rate=1e-2, least_steps=60), OBJECTIVES, heard.append)
    assert len(heard) >= 6
    assert heard[-1] < heard[0]


VIDEO = {
    "watch": Objective("watch", 0.5, loss="weighted", usual=300),
    "click": Objective("click", 0.2),
    "liked": Objective("first like", 0.3),
}


def test_a_weighted_head_learns_the_expected_value_and_a_plain_one_the_probability():
    """One kind of item is watched for 2 by half, the other for 0.2 by one in ten; liked by three in ten, where it was not had before."""
    made, rng = known_world(), np.random.default_rng(0)
    kind, count = made.item % 2, len(made.item)
    items = np.stack([np.arange(ITEMS) % 2, np.zeros(ITEMS)], axis=1).astype(np.float32)
    click = rng.random(count) < np.where(kind == 1, 0.5, 0.1)
    outcome = np.stack([click * np.where(kind == 1, 2.0, 0.2), click, rng.random(count) < 0.3], axis=1).astype(np.float32)
    examples = replace(made.examples, outcome=outcome, cross=np.zeros((count, CROSS), np.float16))
    material = replace(made, items=items, examples=examples, judging=Heads.of(VIDEO).judging(examples.seen))
    queries = np.arange(QUERIES)
    sizes = replace(SIZES, heads=tuple(VIDEO))
    told = predict(fit(sizes, material, queries, Fitting(epochs=40), tuple(VIDEO.values())), material, queries)
    assert told.shape == (count, 3)
    scaling = scaling_of(tuple(VIDEO.values()), told, material.judging, outcome, examples.weight)
    watch, chance = (np.array(scaling[h])[0] * told[:, h] + scaling[h][1] for h in (0, 1))
    assert [np.exp(watch)[kind == one].mean() for one in (0, 1)] == pytest.approx([0.02, 1.0], rel=0.4)
    assert [(1 / (1 + np.exp(-chance)))[kind == one].mean() for one in (0, 1)] == pytest.approx([0.1, 0.5], abs=0.06)


def test_a_head_is_not_moved_by_items_it_does_not_judge():
    """The head `first like` sees likes only where the item was had before: nothing of it is learnt."""
    made = known_world()
    seen = made.examples.seen
    told = []
    for likes in (np.zeros(len(seen)), seen.astype(np.float64)):
        outcome = np.stack([likes * 0, likes * 0, likes], axis=1).astype(np.float32)
        material = replace(made, examples=replace(made.examples, outcome=outcome), judging=Heads.of(VIDEO).judging(seen))
        sizes = replace(SIZES, heads=tuple(VIDEO))
        told.append(fit(sizes, material, np.arange(QUERIES), Fitting(epochs=1, least_steps=5), tuple(VIDEO.values())))
    assert torch.equal(told[0].top[-1].weight, told[1].top[-1].weight)


def test_the_weighted_loss_is_least_where_the_odds_are_the_expected_value():
    values = torch.tensor([0.0, 0.0, 3.0, 1.0])
    logits = torch.linspace(-4, 4, 801)
    losses = [float(head_loss(VIDEO["watch"], logit.expand(4), values).mean()) for logit in logits]
    assert float(torch.exp(logits[int(np.argmin(losses))])) == pytest.approx(1.0, abs=0.02)


def test_an_item_that_was_shown_on_top_is_worth_no_more_than_its_equal_that_was_not():
    """Both kinds are wanted alike; one stood first four times in five, the other once. Of the first slot .4 were chosen, of the last .1."""
    made, rng = known_world(), np.random.default_rng(1)
    count = len(made.item)
    kind = made.item % 2
    first = rng.random(count) < np.where(kind == 1, 0.8, 0.2)
    label = (rng.random(count) < np.where(first, 0.4, 0.1)).astype(np.float32)
    items = np.stack([np.arange(ITEMS) % 2, np.zeros(ITEMS)], axis=1).astype(np.float32)
    heads = {"chosen": Objective("positive", 1.0)}
    judging = np.ones((count, 1), bool)
    apart = []
    for slot in (np.where(first, 1, 11).astype(np.uint8), np.zeros(count, np.uint8)):
        told = replace(made.examples, outcome=label[:, None], slot=slot, cross=np.zeros((count, CROSS), np.float16))
        shown = replace(made, items=items, examples=told, judging=judging)
        model = fit(replace(SIZES, heads=tuple(heads)), shown, np.arange(QUERIES), Fitting(epochs=40), tuple(heads.values()))
        logits = predict(model, shown, np.arange(QUERIES))[:, 0]
        apart.append(float(logits[kind == 1].mean() - logits[kind == 0].mean()))
        if slot.any():
            added = model.slots[:, 0].detach()
            assert float(added[1] - added[11]) == pytest.approx(np.log(0.4 / 0.6) - np.log(0.1 / 0.9), abs=0.4)
    assert abs(apart[0]) < 0.35
    assert apart[1] > 0.6  # what is learnt where nobody says where it stood


@pytest.mark.parametrize(("name", "value"), [("cross", np.nan), ("outcome", np.inf), ("weight", np.nan), ("request", np.inf)])
def test_a_number_that_is_none_is_refused_by_name(material: Material, name: str, value: float):
    spoilt = getattr(material.examples, name).copy()
    spoilt.flat[7] = value
    with pytest.raises(ValueError, match=f"examples' {name}.* hold {value} at \\[.*expected a finite number"):
        check_finite(replace(material.examples, **{name: spoilt}), material.items)


def test_a_loss_that_is_no_number_ends_the_fit(material: Material):
    with pytest.raises(ValueError, match="the loss of the heads again positive, first positive is"):
        fit(SIZES, replace(material, examples=replace(material.examples, outcome=material.examples.outcome * np.float32(np.nan))),
            material.of_cuts(0, 1), Fitting(), OBJECTIVES)  # fmt: skip
