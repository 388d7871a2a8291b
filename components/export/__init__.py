"""From learnt networks to what the server runs: ONNX graphs, precomputed item halves, INT8 where it holds."""
