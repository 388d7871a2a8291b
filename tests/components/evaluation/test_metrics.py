"""Metrics against numbers worked out by hand and against slow, obvious loops."""

from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.metrics import (
    NOTHING,
    Mean,
    Strata,
    Target,
    coverage,
    diversity,
    hit_rate,
    hits,
    ndcg,
    novelty,
    paired,
    recall,
    reciprocal_rank,
)

# Two users, lists of four. User 0 wants {7, 2}: found at ranks 1 and 3 (0-based). User 1 wants {5}: not listed.
LISTS = np.array([[4, 7, 1, 2], [0, 3, NOTHING, NOTHING]], np.int32)
TARGET = Target(np.array([0, 0, 1]), np.array([7, 2, 5]), 2)


def test_hits_are_where_the_target_stands():
    assert hits(LISTS, TARGET).tolist() == [[False, True, False, True], [False] * 4]


def test_recall_divides_by_the_target_not_by_the_cut():
    hit = hits(LISTS, TARGET)
    assert recall(hit, TARGET.sizes, 2).tolist() == [0.5, 0]
    assert recall(hit, TARGET.sizes, 1000).tolist() == [1, 0]


def test_ndcg_by_hand():
    # gains at ranks 1 and 3: 1/log2(3) + 1/log2(5) = 0.6309 + 0.4307; ideal of two: 1 + 0.6309; at K = 1 the ideal is 1 and nothing is hit
    hit = hits(LISTS, TARGET)
    assert ndcg(hit, TARGET.sizes, 10) == pytest.approx([(0.63093 + 0.43068) / 1.63093, 0], abs=1e-5)
    assert ndcg(hit, TARGET.sizes, 1).tolist() == [0, 0]


def test_ideal_counts_no_more_items_than_the_cut():
    lists = np.array([[0, 1]], np.int32)
    target = Target(np.zeros(5, int), np.arange(5), 1)
    assert ndcg(hits(lists, target), target.sizes, 2).tolist() == [1]


def test_hit_rate_and_reciprocal_rank_by_hand():
    hit = hits(LISTS, TARGET)
    assert hit_rate(hit, 1).tolist() == [0, 0]
    assert hit_rate(hit, 2).tolist() == [1, 0]
    assert reciprocal_rank(hit).tolist() == [0.5, 0]


def test_a_user_without_a_list_counts_as_all_misses():
    lists = np.full((1, 3), NOTHING, np.int32)
    target = Target(np.array([0]), np.array([1]), 1)
    hit = hits(lists, target)
    assert [m.tolist() for m in (recall(hit, target.sizes, 3), ndcg(hit, target.sizes, 3), reciprocal_rank(hit))] == [[0], [0], [0]]


def test_a_target_item_that_the_catalogue_lacks_is_a_miss_that_counts():
    target = Target(np.array([0, 0]), np.array([4, 99]), 1)
    assert recall(hits(LISTS[:1], target), target.sizes, 4).tolist() == [0.5]


def test_coverage_counts_distinct_items_of_everybodys_first_k():
    assert coverage(LISTS, 2, items=8) == 4 / 8  # 4, 7, 0, 3
    assert coverage(np.full((2, 2), NOTHING, np.int32), 2, items=8) == 0


def test_diversity_is_the_share_of_pairs_that_differ():
    # items 0..3 of categories a a b b: 4 of 6 pairs differ; a list of one has no pair
    label = np.array([1, 1, 2, 2], np.int32)
    assert diversity(np.array([[0, 1, 2, 3], [2, NOTHING, NOTHING, NOTHING]], np.int32), 4, label) == pytest.approx([4 / 6, 0])


def test_novelty_is_surprise_in_bits():
    # 7 users: item 0 had by 7 (8/8: 0 bits), item 1 by 1 (2/8: 2 bits), item 2 by none (1/8: 3 bits)
    buyers = np.array([7.0, 1.0, 0.0])
    assert novelty(np.array([[0, 1], [2, NOTHING]], np.int32), 2, buyers, users=7) == pytest.approx([1.0, 3.0])


def test_paired_differences_have_the_error_of_the_difference():
    ours, theirs = np.array([0.5, 0.9, 0.1]), np.array([0.4, 0.8, 0.0])
    difference = paired(ours, theirs)  # always 0.1 ahead: far more certain than either mean
    assert difference.value == pytest.approx(0.1)
    assert difference.error == pytest.approx(0, abs=1e-12)
    assert Mean.of(ours).error == pytest.approx(0.4 / np.sqrt(3))
    with pytest.raises(ValueError, match="same users"):
        paired(ours, theirs[:2])


def test_of_drawn_users_the_mean_is_all_users_and_the_error_that_of_many_draws():
    """900 users of two strata, .2 and .7 on the mean; 40 and 60 of them drawn, so that users of the first count for more."""
    random = np.random.default_rng(0)
    stratum = np.repeat([0, 1], [800, 100])
    values = np.where(stratum == 0, 0.2, 0.7) + random.normal(0, [0.1, 0.3], (900, 2))[np.arange(900), stratum]
    sizes, asked = np.array([800, 100]), np.array([40, 60])
    means, errors = [], []
    for _ in range(2000):
        drawn = np.concatenate([random.choice(np.flatnonzero(stratum == h), asked[h], replace=False) for h in (0, 1)])
        found = Mean.of(values[drawn], Strata(stratum[drawn], sizes, asked))
        part = np.flatnonzero(drawn % 3 == 0)  # a slice: how many of it are drawn is chance, too
        sliced = Mean.of(values[drawn][part], Strata(stratum[drawn], sizes, asked).only(part))
        means.append((found.value, sliced.value))
        errors.append((found.error, sliced.error))
    for place, whole in enumerate((values, values[::3])):
        assert np.mean(means, axis=0)[place] == pytest.approx(whole.mean(), abs=0.004)
        chance = whole.std(ddof=1) / np.sqrt(len(whole))  # of the 900 themselves, or the 300
        assert np.mean(errors, axis=0)[place] == pytest.approx(np.hypot(np.std(means, axis=0)[place], chance), rel=0.07)


def test_drawing_everybody_is_no_sample():
    values, stratum = np.random.default_rng(1).random(50), np.arange(50) % 3
    sizes = np.bincount(stratum)
    drawn, plain = Mean.of(values, Strata(stratum, sizes, sizes)), Mean.of(values)
    assert drawn.value == pytest.approx(plain.value)
    assert drawn.error == pytest.approx(plain.error)


def test_a_mean_over_nobody_is_refused():
    with pytest.raises(ValueError, match="no users"):
        Mean.of(np.array([]))


cases = st.tuples(
    st.lists(st.permutations(range(8)).map(lambda p: p[:5]), min_size=1, max_size=6),
    st.lists(st.sets(st.integers(0, 9), max_size=6), min_size=6, max_size=6),
    st.integers(1, 7),
)


@given(cases)
def test_metrics_agree_with_slow_loops(case):
    listed, wanted, k = case
    lists = np.array(listed, np.int32)
    pairs = [(user, item) for user in range(len(listed)) for item in sorted(wanted[user])]
    target = Target(np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs], int), len(listed))
    hit = hits(lists, target)
    for user, items in enumerate(listed):
        found = [rank for rank, item in enumerate(items) if item in wanted[user]]
        early = [rank for rank in found if rank < k]
        size = len(wanted[user])
        ideal = sum(1 / log2(rank + 2) for rank in range(min(k, size)))
        assert recall(hit, target.sizes, k)[user] == pytest.approx(len(early) / size if size else 0)
        assert ndcg(hit, target.sizes, k)[user] == pytest.approx(sum(1 / log2(r + 2) for r in early) / ideal if size else 0)
        assert reciprocal_rank(hit)[user] == pytest.approx(1 / (found[0] + 1) if found else 0)
        assert hit_rate(hit, k)[user] == bool(early)


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), min_size=1, max_size=5), st.integers(1, 6))
def test_diversity_agrees_with_counting_pairs(listed, k):
    label = np.array([3, 3, 3, 1, 1, 0, 0, 2, 7, 7], np.int32)
    lists = np.full((len(listed), 6), NOTHING, np.int32)
    for user, items in enumerate(listed):
        lists[user, : len(items)] = items
    for user, items in enumerate(listed):
        top = items[:k]
        pairs = [label[a] != label[b] for i, a in enumerate(top) for b in top[i + 1 :]]
        assert diversity(lists, k, label)[user] == pytest.approx(np.mean(pairs) if pairs else 0)
