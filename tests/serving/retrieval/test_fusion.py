"""Fusion keeps every source's promise and ranks the rest by reciprocal ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.query import Candidates, Hits
from serving.retrieval.fusion import RANK_OFFSET, fuse
from serving.state.user_state import UserState
from serving.system import SourceSpec
from tests.components.retrieval.worlds import CUT_DAY, catalogue, query

ITEMS = catalogue([f"{i:04d}" for i in range(400)])
NOBODY = query(UserState("u"), ITEMS)


def hits(rows: list[int], values: np.ndarray | None = None) -> Hits:
    scores = np.arange(len(rows), 0, -1).astype(np.float32) if values is None else values[rows]
    return Hits(np.array(rows, np.int32), scores, values)


def specs(*shares: float, weights: tuple[float, ...] | None = None) -> list[SourceSpec]:
    return [SourceSpec(f"s{s}", share, {"weight": (weights or shares)[s]}) for s, share in enumerate(shares)]


def slow(lists: list[list[int]], shares: list[float], pool: int) -> dict[int, float]:
    """Row by row: the fused score of everything that must or may be in the pool."""
    fused: dict[int, float] = {}
    for rows, share in zip(lists, shares, strict=True):
        for rank, row in enumerate(rows):
            fused[row] = fused.get(row, 0) + share / (RANK_OFFSET + rank)
    promised = {row for rows, share in zip(lists, shares, strict=True) for row in rows[: int(share * pool)]}
    others = sorted(set(fused) - promised, key=lambda row: (-fused[row], row))
    return {row: fused[row] for row in [*promised, *others[: pool - len(promised)]]}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[int]], list[float], int]:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sources = draw(st.integers(1, 5))
    lists = [random.permutation(400)[: draw(st.integers(0, 120))].tolist() for _ in range(sources)]
    parts = random.integers(1, 10, sources).astype(float)
    return lists, (parts / parts.sum()).tolist(), draw(st.integers(1, 150))


@settings(deadline=None)
@given(worlds())
def test_shares_are_kept_and_the_rest_is_the_best_of_the_fused_ranks(world: tuple[list[list[int]], list[float], int]) -> None:
    lists, shares, pool = world
    found = fuse([hits(rows) for rows in lists], specs(*shares), pool, NOBODY)
    assert len(found) == min(pool, len({row for rows in lists for row in rows}))
    assert len(np.unique(found.rows)) == len(found)
    for rows, share in zip(lists, shares, strict=True):
        assert set(rows[: int(share * pool)]) <= set(found.rows.tolist())
    expected = slow(lists, shares, pool)
    assert sum(expected.values()) == pytest.approx(float(found.fused.sum()), rel=1e-4)
    assert (np.diff(found.fused) <= 0).all()


def test_an_item_found_by_two_sources_beats_one_found_by_either() -> None:
    found = fuse([hits([1, 2]), hits([3, 2])], specs(0.5, 0.5), 3, NOBODY)
    # item 2: .5/61 + .5/61 = .0164; items 1 and 3: .5/60 = .0083
    assert found.rows.tolist() == [2, 1, 3]
    assert found.source_ranks.tolist() == [[1, 1], [0, np.inf], [np.inf, 0]]
    assert found.source_scores.tolist() == [[1, 1], [2, 0], [0, 2]]


def test_a_source_that_knows_all_items_scores_what_others_found() -> None:
    values = np.arange(400, dtype=np.float32)
    found = fuse([hits([399], values), hits([7])], specs(0.5, 0.5), 2, NOBODY)
    assert dict(zip(found.rows.tolist(), found.source_scores[:, 0].tolist(), strict=True)) == {399: 399, 7: 7}


def test_an_item_posted_after_the_fit_has_no_score_there_and_breaks_nothing() -> None:
    found: Candidates = fuse([hits([1], np.ones(390, np.float32)), hits([395])], specs(0.5, 0.5), 2, NOBODY)
    assert dict(zip(found.rows.tolist(), found.source_scores[:, 0].tolist(), strict=True)) == {1: 1.0, 395: 0.0}


def test_what_the_user_had_is_marked() -> None:
    state = UserState("u").with_positive(int(ITEMS.keys[5]), CUT_DAY - 1)
    found = fuse([hits([4, 5, 6])], specs(1.0), 3, query(state, ITEMS))
    assert found.seen.tolist() == [False, True, False]


def test_a_source_may_weigh_otherwise_where_only_new_items_are_asked_for() -> None:
    two = [SourceSpec("a", 0.5, {"weight": 3.0, "discover_weight": 0.0}), SourceSpec("b", 0.5, {"weight": 1.0})]
    usual = fuse([hits([1]), hits([2])], two, 2, NOBODY)
    discovering = fuse([hits([1]), hits([2])], two, 2, query(UserState("u"), ITEMS, discover=True))
    assert usual.rows.tolist() == [1, 2]
    assert discovering.rows.tolist() == [2, 1]
