"""A session of ONNX Runtime asked through buffers that stay: allocated and bound once, again when the batch changes.

Without it ONNX Runtime allocates the input's place on the GPU, and outputs on the host, in every run. Host memory is
ordinary: the Python interface of ONNX Runtime 1.20 to 1.31 names no pinned one.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np

from devices.runners.base import F4, Answer

INPUT: Final = "input"
OUTPUTS: Final = ("features", "logits")


class Binding:
    """A student's session with its buffers, which has answered a zero sample; several threads may ask, one waits.

    Args:
        session: of `runtime`.
        runtime: the module ``onnxruntime``, or what stands for it.
        shape: of one sample.
        device: where inputs lie, as ONNX Runtime names it: ``cuda`` for its CUDA and TensorRT providers, or ``cpu``.
    """

    def __init__(self, session: Any, runtime: Any, shape: tuple[int, ...], device: str = "cuda") -> None:  # noqa: ANN401
        self._session, self._values, self._shape, self._device = session, runtime.OrtValue, shape, device
        first = session.run(OUTPUTS, {INPUT: np.zeros((1, *shape), np.float32)})
        self._widths = [output.shape[1:] for output in first]
        self._binding, self._asking = session.io_binding(), threading.Lock()
        self._input: Any = None
        self._outputs: list[F4] = []
        self._rows = 0

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *shape) float32, N ≥ 1; the caller has checked that: ONNX Runtime looks at sizes only.

        Raises:
            Exception: what ONNX Runtime raises, such as for want of memory; another batch may be asked then.
        """
        with self._asking:
            if len(x) != self._rows:
                self._bind(len(x))
            self._input.update_inplace(np.ascontiguousarray(x))
            self._session.run_with_iobinding(self._binding)
            return Answer._make(output.copy() for output in self._outputs)

    def _bind(self, rows: int) -> None:
        self._rows, self._input, self._outputs = 0, None, []  # freed before more is asked for
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        self._input = self._values.ortvalue_from_shape_and_type((rows, *self._shape), np.float32, self._device, 0)
        self._binding.bind_ortvalue_input(INPUT, self._input)
        for name, width in zip(OUTPUTS, self._widths, strict=True):
            output = np.empty((rows, *width), np.float32)
            self._binding.bind_ortvalue_output(name, self._values.ortvalue_from_numpy(output))
            self._outputs.append(output)
        self._rows = rows
