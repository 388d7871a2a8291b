"""Fused ranks, promises, ties, what is barred and what is seen: on lists small enough to work out by hand."""

import numpy as np
import pytest

from serving.query import Hits, Query, Request
from serving.retrieval.fusion import fuse, retrieve, weight
from serving.state.user_state import UserState
from serving.system import Learning, SourceSpec
from tests.components.retrieval.worlds import CUT_DAY, catalogue, query

ITEMS = catalogue([f"{number:02d}" for number in range(12)])
NOBODY = query(UserState("u"), ITEMS)


def hits(*rows: int) -> Hits:
    return Hits(np.array(rows, np.int32), np.arange(len(rows), 0, -1).astype(np.float32))


def spec(share: float, **settings: float) -> SourceSpec:
    return SourceSpec("s", share, settings)


def test_a_place_adds_the_weight_over_sixty_and_the_rank_or_over_the_sources_own_offset() -> None:
    found = fuse([hits(3, 5), hits(5, 3)], [spec(0.5, weight=2.0), spec(0.5, weight=3.0, offset=10.0)], 2, NOBODY)
    assert found.rows.tolist() == [5, 3]
    assert found.fused == pytest.approx([2 / 61 + 3 / 10, 2 / 60 + 3 / 11], rel=1e-6)
    assert found.source_ranks.tolist() == [[1, 0], [0, 1]]
    plain = fuse([hits(3)], [spec(1.0)], 2, NOBODY)
    assert plain.fused == pytest.approx([1 / 60])


def test_where_more_is_promised_than_the_pool_holds_every_promise_is_kept_and_nothing_else() -> None:
    found = fuse([hits(1, 2, 3, 4), hits(5, 6, 7, 8)], [spec(1.0), spec(1.0)], 3, NOBODY)
    assert found.rows.tolist() == [1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("pool", range(1, 10))
def test_of_equal_ranks_those_named_first_are_taken_and_no_more_than_there_is_room_for(pool: int) -> None:
    alike = [hits(row) for row in (9, 4, 7, 2, 8, 1, 3)]  # each first in a list of its own
    found = fuse(alike, [spec(0.0)] * len(alike), pool, NOBODY)
    assert found.rows.tolist() == [9, 4, 7, 2, 8, 1, 3][:pool]


def test_a_promised_item_stays_though_others_stand_higher_and_fill_what_is_left_in_their_order() -> None:
    found = fuse([hits(1, 2, 3), hits(4, 5, 6)], [spec(0.0, weight=9.0), spec(0.5, weight=0.1)], 4, NOBODY)
    assert found.rows.tolist() == [1, 2, 4, 5]  # two are promised to the second, of four places
    tied = fuse([hits(1), hits(2), hits(3), hits(4, 5)], [spec(0.0)] * 3 + [spec(0.5, weight=0.01)], 4, NOBODY)
    assert tied.rows.tolist() == [1, 2, 4, 5]


def test_what_carries_a_barred_flag_is_left_out_and_what_carries_another_is_not() -> None:
    flags = np.zeros(12, np.uint8)
    flags[[1, 2, 3]] = [1, 2, 4]
    assert fuse([hits(1, 2, 3, 4)], [spec(1.0)], 4, NOBODY, (flags, 1 | 4)).rows.tolist() == [2, 4]
    assert fuse([hits(1, 2, 3, 4)], [spec(1.0)], 4, NOBODY, (flags, 0)).rows.tolist() == [1, 2, 3, 4]


def test_what_was_had_is_marked_wherever_it_stands_and_nothing_is_of_a_stranger() -> None:
    state = UserState("u")
    for row in (0, 5, 11):
        state = state.with_positive(int(ITEMS.keys[row]), CUT_DAY - 1)
    found = fuse([hits(4, 5, 11, 0, 10)], [spec(1.0)], 5, query(state, ITEMS))
    assert found.seen.tolist() == [False, True, True, True, False]
    assert fuse([hits(4, 5)], [spec(1.0)], 5, NOBODY).seen.tolist() == [False, False]


def test_scores_are_each_sources_own_and_zero_where_it_gives_none() -> None:
    told = Hits(np.array([2], np.int32), np.array([7], np.float32), np.array([7, 3], np.float32), np.array([-1, 1, 0] + [-1] * 9, np.int32))
    found = fuse([told, hits(1, 9)], [spec(0.5), spec(0.5)], 4, NOBODY)
    scores = dict(zip(found.rows.tolist(), found.source_scores.tolist(), strict=True))
    assert scores == {2: [7, 0], 1: [3, 2], 9: [0, 1]}


def test_a_source_weighs_as_set_and_where_only_new_items_are_asked_for_as_set_for_that() -> None:
    assert weight(spec(1.0), False) == weight(spec(1.0), True) == 1.0
    assert [weight(spec(1.0, weight=3.0, discover_weight=0.5), discover) for discover in (False, True)] == [3.0, 0.5]
    assert weight(spec(1.0, weight=3.0), True) == 3.0


class Listing:
    """A source that tells what it was asked."""

    def __init__(self, share: float, *rows: int) -> None:
        self.spec, self._rows = spec(share), rows
        self.asked: tuple[int, object] | None = None

    def retrieve(self, _: Query, n: int, vector: object = None) -> Hits:
        self.asked = n, vector
        return hits(*self._rows[:n])


def test_every_source_is_asked_for_the_whole_pool_with_the_users_vector() -> None:
    one, two, vector = Listing(0.5, 1, 2, 3), Listing(0.5, 4, 5, 6), np.ones(2, np.float32)
    asked = Query(Request("u", 4, CUT_DAY), UserState("u"), ITEMS, Learning())
    assert retrieve(asked, (one, two), 4, vector).rows.tolist() == [1, 4, 2, 5]  # type: ignore[arg-type]
    assert one.asked is not None
    assert (one.asked[0], one.asked[1] is vector) == (4, True)
    flags = np.zeros(12, np.uint8)
    flags[4] = 1
    assert retrieve(asked, (one, two), 4, None, (flags, 1)).rows.tolist() == [1, 2, 5]  # type: ignore[arg-type]
