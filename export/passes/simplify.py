"""Constants folded, identities and dead ends removed: ONNX Runtime's own basic optimisations, which keep plain ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnxruntime

from devices.runners.ort_runner import session_options
from edge_protocol.errors import ExportError
from export.passes.base import Report, checked, report


def simplify(model: bytes) -> tuple[bytes, Report]:
    """Simplify a file.

    Raises:
        ExportError: it is refused, or ONNX Runtime cannot load it.
    """
    checked(model)
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simple.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            reason = str(error).splitlines()[0]
            raise ExportError(
                f"ONNX Runtime cannot load this file: {reason}; replace what it names, or use a newer runtime"
            ) from error
        after = path.read_bytes()
    checked(after)
    return after, report("simplify", model, after)
