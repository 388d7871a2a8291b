"""A release made worse in one way, packed whole under a digest of its own: what no check of content can find, and only its answers show."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.bundle.bundle import show, write_bundle

_WIDTH = 1500  # a product of two such squares takes some 150 ms of one slow core
_OF_EACH = 20  # calls of which one fails


def spoilt(bundle: Path, how: str, out: Path) -> Path:
    """The same bundle but for its heavy ranker, in `out/<digest>/`. `how`: one of `WAYS`."""
    work = out / how
    shutil.copytree(bundle, work)
    shutil.rmtree(work / "layers" / "heavy", ignore_errors=True)  # the same ranker as arrays, for speed: the graph is to answer
    graph = onnx.load(work / "heavy.onnx")
    WAYS[how](graph.graph)
    onnx.save(graph, work / "heavy.onnx")
    (work / "bundle.json").unlink()
    (work / "bundle.sig").unlink(missing_ok=True)
    manifest = {name: value for name, value in show(bundle).items() if name not in ("files", "digest", "format")}
    return write_bundle({path.name: path for path in work.iterdir()}, manifest, out)


def _unloadable(graph: onnx.GraphProto) -> None:
    """An operator that no runtime has."""
    graph.node.append(helper.make_node("Unheard", [_hidden(graph)], ["logits"]))


def _reversed(graph: onnx.GraphProto) -> None:
    """What it liked most comes last."""
    graph.node.append(helper.make_node("Neg", [_hidden(graph)], ["logits"]))


def _slow(graph: onnx.GraphProto) -> None:
    """A large product of nothing is waited for."""
    _constant(graph, "square", np.array([_WIDTH, _WIDTH], np.int64))
    _constant(graph, "nothing", np.array(0.0, np.float32))
    add = graph.node.append
    add(helper.make_node("ReduceSum", ["cross"], ["sum"], keepdims=0))
    add(helper.make_node("Expand", ["sum", "square"], ["wide"]))
    add(helper.make_node("MatMul", ["wide", "wide"], ["product"]))
    add(helper.make_node("ReduceMax", ["product"], ["greatest"], keepdims=0))
    add(helper.make_node("Mul", ["greatest", "nothing"], ["late"]))
    add(helper.make_node("Add", [_hidden(graph), "late"], ["logits"]))


def _erring(graph: onnx.GraphProto) -> None:
    """One call in twenty, told by what was asked, looks a row up that is not there."""
    _constant(graph, "many", np.array(1.1e5, np.float32))
    _constant(graph, "calls", np.array(_OF_EACH, np.int64))
    _constant(graph, "rows", np.zeros(_OF_EACH - 1, np.float32))
    add = graph.node.append
    add(helper.make_node("ReduceMean", ["halves"], ["mean"], keepdims=0))  # small: a greater number has no last digits
    add(helper.make_node("Mul", ["mean", "many"], ["large"]))
    add(helper.make_node("Cast", ["large"], ["whole"], to=TensorProto.INT64))
    add(helper.make_node("Mod", ["whole", "calls"], ["row"]))
    add(helper.make_node("Gather", ["rows", "row"], ["zero"]))
    add(helper.make_node("Add", [_hidden(graph), "zero"], ["logits"]))


def _hidden(graph: onnx.GraphProto) -> str:
    """The tensor that was the graph's answer, under another name."""
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[:] = ["learnt"]
    return "learnt"


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:  # type: ignore[type-arg]
    graph.initializer.append(numpy_helper.from_array(value, name))


WAYS: dict[str, Callable[[onnx.GraphProto], None]] = {"slow": _slow, "erring": _erring, "reversed": _reversed, "unloadable": _unloadable}
