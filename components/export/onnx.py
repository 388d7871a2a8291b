"""Torch modules to ONNX graphs: a fixed opset, the same bytes for the same weights, INT8 weights on demand."""

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

OPSET = 17


def to_onnx(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str], growing: Sequence[str]) -> bytes:
    """The graph of `module(*inputs)`. Inputs and outputs named in `growing` have a free first axis.

    The tracing exporter is used: these modules hold no control flow, and it writes neither source paths nor times into the graph.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():  # deprecated in favour of an exporter that takes 17 s a graph and records file paths
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in growing},
        )
    return file.getvalue()


def to_int8(graph: bytes) -> bytes:
    """The graph with INT8 weights, one scale a column, activations quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        before, after = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        before.write_bytes(graph)
        logging.disable(logging.WARNING)  # it recommends shape inference, which these graphs carry, through the root logger
        try:
            quantize_dynamic(before, after, weight_type=QuantType.QInt8, per_channel=True)
        finally:
            logging.disable(logging.NOTSET)
        return after.read_bytes()
