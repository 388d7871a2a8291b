"""Three ways of scanning an int8 table give the same numbers, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.native import kernel
from serving.retrieval.int8_scan import Int8Scan, product_graph

WAYS = ["runtime", "numpy", *(["kernel"] if kernel.native() else [])]


@given(st.integers(1, 300), st.sampled_from([1, 3, 32, 64]), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_all_ways_agree_with_sums_of_integers(rows: int, dimensions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    table = random.integers(-128, 128, (rows, dimensions)).astype(np.int8)
    vector = random.normal(size=dimensions).astype(np.float32)
    scale = float(np.abs(vector).max()) / 127
    rounded = np.rint(vector / scale).astype(np.int64)
    expected = (table.astype(np.int64) @ rounded).astype(np.float32) * np.float32(scale)
    for way in WAYS:
        assert np.array_equal(Int8Scan(table, way).products(vector), expected), way


def test_rounding_the_vector_keeps_the_nearest_items() -> None:
    random = np.random.default_rng(0)
    table = random.integers(-127, 128, (5000, 64)).astype(np.int8)
    vector = random.normal(size=64).astype(np.float32)
    exact = table.astype(np.float32) @ vector
    found = Int8Scan(table).products(vector)
    shared = np.intersect1d(np.argsort(-found)[:200], np.argsort(-exact)[:200])
    assert len(shared) >= 190


@pytest.mark.parametrize("way", WAYS)
def test_a_vector_of_zeros_and_a_table_without_rows(way: str) -> None:
    assert Int8Scan(np.ones((4, 8), np.int8), way).products(np.zeros(8, np.float32)).tolist() == [0, 0, 0, 0]
    assert Int8Scan(np.ones((0, 8), np.int8), way).products(np.ones(8, np.float32)).tolist() == []


def test_the_graph_written_by_hand_is_what_the_onnx_package_reads() -> None:
    import onnx

    model = onnx.load_from_string(product_graph(np.arange(12, dtype=np.int8).reshape(4, 3)))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMulInteger"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[0]).tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
