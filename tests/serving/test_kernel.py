"""The compiled loops beside numpy: the same bits, and the same lists with and without them."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import kernel

pytestmark = pytest.mark.skipif(not kernel.native(), reason="the native kernel was not compiled here")


@pytest.fixture
def numpy_again() -> Iterator[None]:
    yield
    kernel.use(True)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 70), st.sampled_from([1, 7, 16, 48, 64, 65, 128]))
def test_products_of_integers_are_exact_at_every_width(seed: int, items: int, width: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(-128, 128, (items, width), dtype=np.int8)
    vector = random.integers(-128, 128, width, dtype=np.int8)
    found = np.empty(items, np.float32)
    assert kernel.dots(table, vector, found)
    assert found.tolist() == (table.astype(np.int64) @ vector.astype(np.int64)).tolist()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9), st.integers(0, 80), st.sampled_from([np.uint16, np.int32]))
def test_votes_add_up_as_bincount_adds_them(seed: int, items: int, neighbours: int, voters: int, kind: type) -> None:
    random = np.random.default_rng(seed)
    to = random.integers(items, size=(items, neighbours)).astype(kind)
    weights = random.integers(-30_000, 30_000, (items, neighbours), dtype=np.int16)
    found = random.integers(items, size=voters).astype(np.int32)
    strengths = random.normal(size=voters).astype(np.float32)
    expected = np.bincount(to[found].ravel(), (weights[found] * strengths[:, None]).ravel(), minlength=items)
    assert kernel.votes(to, weights, found, strengths).tolist() == expected.tolist()


def test_a_voter_or_neighbour_outside_of_the_table_is_refused() -> None:
    to, weights = np.array([[1], [5]], np.int32), np.ones((2, 1), np.int16)
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match="a voter is outside"):
        kernel.votes(to, weights, np.array([2], np.int32), one)
    with pytest.raises(ValueError, match="a neighbour is outside"):
        kernel.votes(to, weights, np.array([1], np.int32), one)


def test_without_the_kernel_the_callers_are_told_to_use_numpy(numpy_again: None) -> None:
    kernel.use(False)
    assert not kernel.native()
    assert kernel.votes(np.zeros((1, 1), np.uint16), np.ones((1, 1), np.int16), np.zeros(1, np.int32), np.ones(1, np.float32)) is None
    assert not kernel.dots(np.zeros((1, 4), np.int8), np.zeros(4, np.int8), np.empty(1, np.float32))
