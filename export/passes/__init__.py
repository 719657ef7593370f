"""Passes: one self-contained ONNX file in, one out, and a report of what changed; composable, each on its own."""
