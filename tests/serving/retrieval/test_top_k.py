"""Selection is exact: always what a full sort would give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.retrieval.top_k import select


def slow(scores: np.ndarray, n: int, excluded: np.ndarray, floor: float) -> list[int]:
    """A full sort: greatest first, ties by row."""
    left = [row for row in range(len(scores)) if row not in set(excluded.tolist()) and scores[row] > floor]
    return sorted(left, key=lambda row: (-scores[row], row))[:n]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.sampled_from([1, 50, 3000, 20_000]), st.sampled_from([-np.inf, 0.0]))
def test_selection_equals_a_full_sort(seed: int, n: int, size: int, floor: float) -> None:
    random = np.random.default_rng(seed)
    scores = random.normal(size=size).astype(np.float32)
    scores[random.random(size) < 0.5] = 0  # many ties
    excluded = np.unique(random.integers(0, size, 5)).astype(np.int32)
    before = scores.copy()
    assert select(scores, n, excluded, floor).tolist() == slow(scores, n, excluded, floor)
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("shape", ["ascending", "descending", "periodic"])
def test_selection_is_exact_when_the_sample_misleads(shape: str) -> None:
    size = 40_960
    scores = {
        "ascending": np.arange(size),
        "descending": -np.arange(size),
        "periodic": np.where(np.arange(size) % 10 == 0, 1e6 - np.arange(size), 0),  # only sampled rows are great
    }[shape].astype(np.float32)
    assert select(scores, 500).tolist() == slow(scores, 500, np.empty(0), -np.inf)
