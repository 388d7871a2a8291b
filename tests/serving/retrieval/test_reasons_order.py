"""The sources of an item are told in the order of their ranks, the best first."""

import numpy as np
import pytest

from serving.query import Candidates
from serving.retrieval.reasons import known


def pool(ranks: list[list[float]]) -> Candidates:
    given = np.array(ranks, np.float32)
    rows = np.arange(40, 40 + len(given), dtype=np.int32)
    return Candidates(rows, np.zeros_like(given), given, np.zeros(len(given), np.float32), np.zeros(len(given), bool))


def test_sources_are_in_the_order_of_their_ranks_the_best_first_and_those_silent_are_left_out() -> None:
    inf = np.inf
    found = known(
        pool([[5, 0, 9], [inf, 7, 2], [3, 3, inf], [inf, inf, inf]]), np.empty(0, np.int32), np.array([40, 41, 42, 43, 99], np.int32)
    )
    assert found == [((1, 0, 2), 0, -1), ((2, 1), 1, -1), ((0, 1), 2, -1), ((), 3, -1), (None, -1, -1)]


@pytest.mark.parametrize("nothing", [None, pool([[1.0]]).take(np.empty(0, np.intp))], ids=["no pool", "an empty one"])
def test_without_a_pool_it_is_only_told_what_was_had(nothing: Candidates | None) -> None:
    asked = np.array([7, 3, 9], np.int32)
    assert known(nothing, np.array([3, 7], np.int32), asked) == [(None, -1, 1), (None, -1, 0), (None, -1, -1)]
    assert known(nothing, np.empty(0, np.int32), asked) == [(None, -1, -1)] * 3
