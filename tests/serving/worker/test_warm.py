"""A server that cannot answer its first, made-up requests in full does not start, and says whom it could not answer."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serving.query import Request
from serving.ranking.rankers import BadModels
from serving.recommender import Recommender
from serving.state.user_state import UserState
from serving.worker.assemble import warm
from tests.serving.tiny_bundle import load_tiny, states, system


def failing(graph: onnx.ModelProto) -> bytes:
    """The same graph, which then looks a row up that is not there."""
    for name, value in (("none", np.array(0.0, np.float32)), ("far", np.array(5, np.int64)), ("rows", np.zeros(1, np.float32))):
        graph.graph.initializer.append(numpy_helper.from_array(value, name))
    last = next(node for node in graph.graph.node if "logits" in node.output)
    last.output[:] = ["learnt"]
    for node in (
        helper.make_node("ReduceSum", ["cross"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "none"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "far"], ["row"]),
        helper.make_node("Gather", ["rows", "row"], ["more"]),
        helper.make_node("Add", ["learnt", "more"], ["logits"]),
    ):
        graph.graph.node.append(node)
    return bytes(graph.SerializeToString())


def test_a_graph_that_fails_when_it_is_asked_starts_no_server(tmp_path: Path) -> None:
    bundle = load_tiny(tmp_path)
    heavy = bundle.folder / "heavy.onnx"
    heavy.write_bytes(failing(onnx.load(heavy)))
    known = states()[0]
    with pytest.raises(BadModels, match=f"the bundle cannot answer user {known.user_id} .*out of data bounds.*serve the one before it"):
        warm(Recommender(bundle, system()), [known])


def test_one_that_answers_everybody_is_warm(tmp_path: Path) -> None:
    recommender, known = Recommender(load_tiny(tmp_path), system()), states()[0]
    request = Request(known.user_id, system().answer_size, recommender.catalogue.cut_day)
    before = recommender.recommend(request, known).items
    warm(recommender, [known, UserState("nobody yet")])
    assert recommender.recommend(request, known).items == before  # nothing of it is kept
