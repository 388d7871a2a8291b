"""A scan of an int8 table is the sum of integers it should be, to the bit, by numpy and by the kernel."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.native import kernel
from serving.retrieval.int8_scan import products


@pytest.fixture(params=[False, *([True] if kernel.native() else [])], ids=lambda native: "kernel" if native else "numpy")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """The loops that run while a test does."""
    before = kernel.native()
    kernel.use(request.param)
    yield
    kernel.use(before)


@pytest.mark.usefixtures("way")
@given(st.sampled_from([1, 7, 300, 8191, 8193, 20_000]), st.sampled_from([1, 3, 64]), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_products_are_sums_of_integers_times_the_scale(rows: int, dimensions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(-128, 128, (rows, dimensions)).astype(np.int8)
    vector = random.normal(size=dimensions).astype(np.float32)
    scale = float(np.abs(vector).max()) / 127
    rounded = np.rint(vector / np.float32(scale)).astype(np.int64)
    expected = (table.astype(np.int64) @ rounded).astype(np.float32) * np.float32(scale)
    assert np.array_equal(products(table, vector), expected)
    scales, prior = random.random((2, rows), np.float32)
    assert np.array_equal(products(table, vector, scales, prior), expected * scales + prior)


@pytest.mark.usefixtures("way")
def test_rounding_the_vector_keeps_the_nearest_items() -> None:
    random = np.random.default_rng(0)
    table = random.integers(-127, 128, (5000, 64)).astype(np.int8)
    vector = random.normal(size=64).astype(np.float32)
    exact = table.astype(np.float32) @ vector
    shared = np.intersect1d(np.argsort(-products(table, vector))[:200], np.argsort(-exact)[:200])
    assert len(shared) >= 190


@pytest.mark.usefixtures("way")
def test_a_vector_of_zeros_and_a_table_without_rows() -> None:
    assert products(np.ones((4, 8), np.int8), np.zeros(8, np.float32)).tolist() == [0, 0, 0, 0]
    assert products(np.ones((0, 8), np.int8), np.ones(8, np.float32)).tolist() == []
