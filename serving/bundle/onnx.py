"""The one way a graph becomes ready to run."""

from pathlib import Path
from typing import Any


def open_session(model: Path | bytes) -> Any:
    """An ONNX graph ready to run: one thread, sequential, no spinning (measured: two threads and ORT_PARALLEL lose at these sizes)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.x64quantprecision", "1")  # without VNNI, int8 products would overflow 16 bits
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
