"""Any self-contained ONNX file in ONNX Runtime, to be measured as it is; a student of ours is `ort_runner`'s."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from devices.closing import Closing
from devices.runners.ort_runner import UNKNOWN_OPERATOR, session_options
from edge_protocol.errors import IncompatibleError

_DTYPES: dict[str, type[np.floating[Any]]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}
_TEMPLATE = "roadcast-weights-payload"
Arrays = dict[str, npt.NDArray[Any]]


class OnnxFile(Closing):
    """A loaded ONNX file.

    Args:
        model: its bytes.
        threads: that one inference may use.
        profile: where a record of every node that ran is written.

    Raises:
        IncompatibleError: truncated, not ONNX, a template without its weights, or an operator this runtime lacks.
    """

    def __init__(self, model: bytes, *, threads: int = 1, profile: Path | None = None) -> None:
        self.session = open_file(model, threads=threads, profile=profile)

    def inputs(self, batch: int, rng: np.random.Generator) -> Arrays:
        """Draw one query of `batch` samples from a standard normal distribution.

        Raises:
            IncompatibleError: the batch of an input is fixed to another size, a size beside the batch is free, or an
                input is not of floating point.
        """
        return {name: rng.standard_normal(shape).astype(dtype) for name, (shape, dtype) in self._wanted(batch).items()}

    def query_bytes(self, batch: int) -> int:
        """Size of the inputs of `batch` samples.

        Raises:
            IncompatibleError: as `inputs` says.
        """
        return sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in self._wanted(batch).values())

    def _wanted(self, batch: int) -> dict[str, tuple[tuple[int, ...], type[np.floating[Any]]]]:
        """Shape and type of every input."""
        found: dict[str, tuple[tuple[int, ...], type[np.floating[Any]]]] = {}
        for value in self.session.get_inputs():
            first, *rest = value.shape or [batch]
            if isinstance(first, int) and first != batch:
                raise IncompatibleError(
                    f"input {value.name!r} has a fixed batch of {first}, and {batch} samples were to be asked at once: "
                    f"export it with a dynamic batch, or ask for {first}"
                )
            if not all(isinstance(size, int) for size in rest) or value.type not in _DTYPES:
                raise IncompatibleError(
                    f"input {value.name!r} is {value.type} {value.shape}: only floating point with fixed sizes beside "
                    "the batch can be drawn; export it with fixed sizes"
                )
            found[value.name] = ((batch, *rest), _DTYPES[value.type])
        return found

    def infer(self, inputs: Arrays) -> list[npt.NDArray[Any]]:
        """Run it and return every output.

        Raises:
            IncompatibleError: the graph does not go together, or memory is not enough for such a batch.
        """
        try:
            answers: list[npt.NDArray[Any]] = self.session.run(None, inputs)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            asked = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
            reason = str(error).splitlines()[0]
            raise IncompatibleError(
                f"this ONNX file does not answer {asked}: {reason}; export it again, or ask for fewer samples"
            ) from error
        return answers

    def close(self) -> None:
        """Free the session."""
        del self.session


def open_file(model: bytes, *, threads: int = 1, profile: Path | None = None) -> onnxruntime.InferenceSession:
    """Load a self-contained file on the CPU.

    Raises:
        IncompatibleError: as `OnnxFile` says.
    """
    try:
        options = session_options(threads, profile)
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        raise IncompatibleError(_reason(model, str(error))) from error


def _reason(model: bytes, said: str) -> str:
    size = f"ONNX file of {len(model)} bytes"
    if _TEMPLATE in said or _TEMPLATE.encode() in model:
        return f"{size} is a template without its weights: name the folder that 'roadcast export build' wrote"
    if UNKNOWN_OPERATOR.search(said):
        return f"{size}: {said.splitlines()[0]}; replace this operator in the model, or use a newer ONNX Runtime"
    return f"{size} cannot be loaded: {said.splitlines()[0]}; export or fetch it again"
