"""INT8 by quantise/dequantise pairs, calibrated on samples of the task: one recipe for CPUs, another for TensorRT.

CPUs take unsigned activations with a zero point (U8S8). TensorRT takes symmetric signed ones (S8S8), and refuses a bias
that was quantised to INT32; on an x86 CPU that file is slower than FP32. The head stays in FP32: it is a thousandth of
the work, and devices fit personal heads from its weights.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from edge_protocol.errors import ExportError
from export.graph import OUTPUTS
from export.passes.base import Pass, Report, checked, report

Target = Literal["cpu", "trt"]
Method = Literal["minmax", "percentile"]
METHODS: tuple[Method, ...] = ("minmax", "percentile")
"""Not entropy: at its defaults ONNX Runtime 1.31 looks at one threshold only, the extremes; with a finer histogram its
search cut our students' activations short (7 to 18 dB where extremes gave 33)."""
PERCENTILE = 99.99
F4 = npt.NDArray[np.float32]
_METHOD = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
_MOST = 32
_RECIPE: dict[Target, tuple[QuantType, dict[str, bool]]] = {
    "cpu": (QuantType.QUInt8, {}),
    "trt": (QuantType.QInt8, {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}),
}
"""Type of activations and extra options per target; weights are signed and have a scale per channel in both."""


def to_int8(target: Target, method: Method, samples: F4, *, only: Sequence[str] = ()) -> Pass:
    """Make a pass that quantises a file of one input.

    Args:
        target: what will run it.
        method: how the range of an activation is found: extremes, or percentiles that leave one value in 10,000 out.
        samples: (N, *shape) float32, as the student takes them; a few hundred that are like what it will see.
        only: names of the layers to quantise; all but the head without it.

    Raises:
        ExportError: no sample, or one that is not a finite number.
    """
    if not len(samples) or not np.isfinite(samples).all():
        raise ExportError("INT8 needs samples of the task to calibrate on, and every one of finite numbers")

    def run(model: bytes) -> tuple[bytes, Report]:
        parsed = checked(model)
        head = [node.name for node in parsed.graph.node if OUTPUTS[1] in node.output]
        activations, extra = _RECIPE[target]
        calibration = {"CalibPercentile": PERCENTILE, "CalibTensorRangeSymmetric": target == "trt"}
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_static(
                parsed,
                path,
                _Reader(parsed.graph.input[0].name, samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=activations,
                weight_type=QuantType.QInt8,
                calibrate_method=_METHOD[method],
                nodes_to_quantize=list(only) or None,
                nodes_to_exclude=head,
                extra_options={**extra, **(calibration if method == "percentile" else {})},
            )
            after = _stripped(path.read_bytes())
        note = f"{method} over {len(samples)} samples"
        return after, report(f"int8-{target}", model, after, note)

    return run


def _stripped(model: bytes) -> bytes:
    """Remove what says which software wrote it, and put equal files into equal bytes."""
    parsed = onnx.load_from_string(model)
    parsed.producer_name, parsed.producer_version = "roadcast", ""
    return bytes(parsed.SerializeToString(deterministic=True))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime ships no types
    """Hands the samples over in batches of one size: histograms of ONNX Runtime 1.31 fail on a rest."""

    def __init__(self, name: str, samples: F4) -> None:
        size = max(size for size in range(1, _MOST + 1) if len(samples) % size == 0)
        self._batches: Iterator[dict[str, F4]] = iter(
            [{name: samples[at : at + size]} for at in range(0, len(samples), size)]
        )

    def get_next(self) -> dict[str, F4] | None:
        """Return the next batch, None after the last."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's progress and its remarks on rank-1 weights to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logging.disable(before)
