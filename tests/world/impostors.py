"""Bundles that should never be released, made from a good one: the same but for a ranker that is random, or popularity itself."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.bundle.bundle import show, write_bundle
from serving.ranking.heads import Heads
from serving.system import System

_MADE = ("digest", "files", "format")  # of bundle.json, written anew


def with_scores(bundle: Path, system: System, worth: NDArray[np.float64], out: Path) -> Path:
    """The bundle with rankers whose final score of item i is `worth[i]` (I,), within (0, 1), whoever asks. Returns its folder.

    A score is probability x objective (`serving.ranking.heads.Heads`); the logit of each head undoes its objective.
    """
    parts = out / "parts"
    shutil.copytree(bundle, parts)
    weights = Heads.of(system.objectives).weights
    probability = worth[:, None] * weights.min() / weights  # (I, 2)
    halves = np.log(probability / (1 - probability)).astype(np.float32)
    for name in ("light", "heavy"):
        width, cross = _shape(parts / f"{name}.onnx")
        table = np.zeros((len(worth), width), np.float32)
        table[:, :2] = halves
        np.save(parts / "halves" / f"{name}.npy", table)
        (parts / f"{name}.onnx").write_bytes(_graph(width, cross))
    _silence_users(parts / "request.onnx")
    manifest = {name: value for name, value in show(bundle).items() if name not in _MADE}
    (parts / "bundle.json").unlink()
    return write_bundle({path.name: path for path in parts.iterdir()}, manifest, out)


def _shape(graph: Path) -> tuple[int, int]:
    """Widths of a ranker graph's inputs: halves, cross features."""
    import onnx

    inputs = {given.name: given.type.tensor_type.shape.dim[1].dim_value for given in onnx.load(graph).graph.input}
    return inputs["halves"], inputs["cross"]


def _silence_users(request: Path) -> None:
    """Every user's half of both rankers becomes zero, so that an item's half is all there is."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(request)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "nothing"))
    for name in ("light", "heavy"):
        for node in model.graph.node:
            node.output[:] = [f"{name}_said" if one == name else one for one in node.output]
        model.graph.node.append(helper.make_node("Mul", [f"{name}_said", "nothing"], [name]))
    request.write_bytes(model.SerializeToString())


def _graph(width: int, cross: int) -> bytes:
    """logits (C, 2) = the first two columns of `halves`, whatever the features say."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT
    inputs = [("halves", ("C", width)), ("cross", ("C", cross))]
    first = numpy_helper.from_array(np.eye(width, 2, dtype=np.float32), "first")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["halves", "first"], ["logits"])],
        "impostor",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("logits", kind, ("C", 2))],
        [first],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
