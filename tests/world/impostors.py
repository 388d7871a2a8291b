"""Bundles that should never be released, made from a good one: the same but for a ranker that is random, or popularity itself."""

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serving.bundle import show, write_bundle
from serving.system import System

_MADE = ("digest", "files", "format")  # of bundle.json, written anew


def with_scores(bundle: Path, system: System, worth: NDArray[np.float64], out: Path) -> Path:
    """The bundle with rankers whose final score of item i is `worth[i]` (I,), within (0, 1), whoever asks. Returns its folder.

    A score is probability x objective (`serving.rankers.final_scores`); the logit of each head undoes its objective.
    """
    parts = out / "parts"
    shutil.copytree(bundle, parts)
    greatest = max(system.objectives.values())
    weights = np.array([system.objectives[head] / greatest for head in ("repeat", "discover")])
    probability = worth[:, None] * weights.min() / weights  # (I, 2)
    halves = np.log(probability / (1 - probability)).astype(np.float32)
    for name in ("light", "heavy"):
        width, cross = _shape(parts / f"{name}.onnx")
        table = np.zeros((len(worth), width), np.float32)
        table[:, :2] = halves
        np.save(parts / "halves" / f"{name}.npy", table)
        (parts / f"{name}.onnx").write_bytes(_graph(width, cross))
    manifest = {name: value for name, value in show(bundle).items() if name not in _MADE}
    (parts / "bundle.json").unlink()
    return write_bundle({path.name: path for path in parts.iterdir()}, manifest, out)


def _shape(graph: Path) -> tuple[int, int]:
    """Widths of a ranker graph's item and cross inputs."""
    import onnx

    inputs = {given.name: given.type.tensor_type.shape.dim[1].dim_value for given in onnx.load(graph).graph.input}
    return inputs["item"], inputs["cross"]


def _graph(width: int, cross: int) -> bytes:
    """logits (C, 2) = the first two columns of `item`, whatever the others say."""
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT
    inputs = [("user", (1, width)), ("item", ("C", width)), ("cross", ("C", cross))]
    first = numpy_helper.from_array(np.eye(width, 2, dtype=np.float32), "first")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["item", "first"], ["logits"])],
        "impostor",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("logits", kind, ("C", 2))],
        [first],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
