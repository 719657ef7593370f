"""TensorRT: a plan, activated and asked through its native API; owns no build and no cache.

A plan holds machine code for one version of TensorRT and one generation of GPU, so it is made on the device it runs on
and never travels. Buffers are allocated once, for the largest batch of the plan; more samples are asked in pieces.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from devices.closing import Closing
from devices.runners.base import F4, Answer
from devices.runners.cuda import Buffer, Cuda
from devices.runners.trt_log import logger_of
from devices.runners.trt_refit import refit
from devices.runners.trt_versions import Api, Trt, api_of
from edge_protocol.errors import DeviceError, IncompatibleError

INPUT: Final = "input"
OUTPUTS: Final = ("features", "logits")
DTYPES: Final[Mapping[str, type[np.generic]]] = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
"""`tensorrt.DataType` to NumPy; ``tensorrt.nptype`` fails with newer versions of NumPy."""


class TrtRunner(Closing):
    """A student in TensorRT; several threads may ask it, one waits for the other. One that is dropped frees itself.

    Args:
        trt: the module.
        cuda: one stream, which this runner owns from now on.
        plan: what `build_plan` made.
        student: folder and name of an ONNX file with its weights beside it, which replace those of the plan.

    Raises:
        DeviceError: out of memory, or a kernel fails.
        IncompatibleError: a plan of another GPU or version, or of something that is no student.
        RefitRefusedError: the plan does not take the weights: build it again.
    """

    def __init__(self, trt: Trt, cuda: Cuda, plan: bytes, *, student: Path | None = None) -> None:
        self._cuda, self._buffers, self._asking = cuda, dict[str, Buffer](), threading.Lock()
        self._log = logger_of(trt)
        self.provider: str = f"TensorRT {trt.__version__} on compute capability {cuda.compute_capability()}"
        try:
            self._activate(trt, api_of(trt.__version__), plan, student)
            self.infer(np.zeros((1, *self._shape), np.float32))  # what is named as provider has run
        except BaseException:
            self.close()
            raise

    def _activate(self, trt: Trt, api: Api, plan: bytes, student: Path | None) -> None:
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise IncompatibleError(
                f"plan of {len(plan)} bytes does not load in {self.provider}: {self._log.said() or 'no reason given'}; "
                "it is damaged, or of another GPU or version: delete it, and it is built again"
            )
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        if sorted(names) != sorted((INPUT, *OUTPUTS)):
            raise IncompatibleError(f"plan goes over {names}: not a student's, which has {[INPUT, *OUTPUTS]}")
        if student is not None:
            refit(trt, api, self._engine, student, self._log, self._cuda)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise DeviceError(f"{self.provider}: no execution context: {self._log.said()}; free memory on this board")
        self._most = int(self._engine.get_tensor_profile_shape(INPUT, 0)[2][0])
        for name in names:
            shape = (self._most, *tuple(self._engine.get_tensor_shape(name))[1:])
            dtype = DTYPES[self._engine.get_tensor_dtype(name).name]
            buffer = self._buffers[name] = self._cuda.allocate(shape, dtype)
            self._context.set_tensor_address(name, buffer.device)
        self._shape = self._buffers[INPUT].host.shape[1:]

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *input shape) float32, N ≥ 1.

        Raises:
            DeviceError: the GPU failed.
            IncompatibleError: x has another shape or type than the student takes.
        """
        if not len(x) or x.dtype != np.float32 or x.shape[1:] != self._shape:
            raise IncompatibleError(f"student takes float32 (N, *{self._shape}), N ≥ 1; was given {x.dtype} {x.shape}")
        features, logits = (np.empty((len(x), self._buffers[name].host.shape[1]), np.float32) for name in OUTPUTS)
        for start in range(0, len(x), self._most):
            piece = x[start : start + self._most]
            with self._asking:  # there is one set of buffers: a probation asks while frames are answered
                self._ask(piece)
                for name, answer in zip(OUTPUTS, (features, logits), strict=True):
                    answer[start : start + len(piece)] = self._buffers[name].host[: len(piece)]
        return Answer(features, logits)

    def _ask(self, piece: F4) -> None:
        rows = len(piece)
        self._buffers[INPUT].host[:rows] = piece
        self._cuda.to_device(self._buffers[INPUT], rows)
        ready = self._context.set_input_shape(INPUT, piece.shape)
        if not ready or not self._context.execute_async_v3(self._cuda.stream):
            raise DeviceError(f"{self.provider} did not run: {self._log.said()}; use ONNX Runtime, and report it")
        for name in OUTPUTS:
            self._cuda.to_host(self._buffers[name], rows)
        self._cuda.wait()

    def close(self) -> None:
        """Free buffers, plan and stream."""
        for buffer in self._buffers.values():
            self._cuda.free(buffer)
        self._buffers.clear()
        for part in ("_context", "_engine", "_runtime"):  # in this order: each holds on to the next
            self.__dict__.pop(part, None)
        self._cuda.close()

    def __del__(self) -> None:
        with suppress(Exception):  # a broken GPU frees nothing, and there is nobody to tell
            self.close()
