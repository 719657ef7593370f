"""The few calls of CUDA's runtime that TensorRT needs beside it: memory, copies, one stream. Through ctypes alone."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_protocol.errors import DeviceError, NotReadyError

_NAMES: Final = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")
_TO_DEVICE: Final = 1
_TO_HOST: Final = 2
_MAJOR, _MINOR = 75, 76
_OUT_OF_MEMORY: Final = 2

Library = Any
"""``libcudart``, or what stands for it in a test."""


class Buffer(NamedTuple):
    """Memory of an array on the device, and pinned on the host.

    Attributes:
        host: the array.
        device: address.
        pinned: address of the host's part.
    """

    host: npt.NDArray[Any]
    device: int
    pinned: int


def load_cudart(load: Callable[[str], Library] = ctypes.CDLL) -> Library:
    """Load CUDA's runtime.

    Raises:
        NotReadyError: it is not installed.
    """
    for name in filter(None, (*_NAMES, ctypes.util.find_library("cudart"))):
        with suppress(OSError):
            return load(name)
    raise NotReadyError(
        "CUDA's runtime (libcudart) is not here: on a Jetson install JetPack's (apt install cuda-cudart), or name its "
        "folder in LD_LIBRARY_PATH; students answer with ONNX Runtime without it"
    )


class Cuda:
    """One stream of the current device.

    Args:
        library: see `load_cudart`.

    Raises:
        DeviceError: no GPU, or its driver is too old for this runtime.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = stream.value or 0

    def compute_capability(self) -> str:
        """Return the generation of the GPU, such as ``8.7``."""
        return ".".join(str(self._attribute(number)) for number in (_MAJOR, _MINOR))

    def allocate(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Buffer:
        """Allocate an array on both sides.

        Raises:
            DeviceError: out of memory.
        """
        empty = np.empty(shape, dtype)
        device, pinned = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(device), ctypes.c_size_t(empty.nbytes))
        try:
            self._call("cudaMallocHost", ctypes.byref(pinned), ctypes.c_size_t(empty.nbytes))
        except DeviceError:
            self._call("cudaFree", device)
            raise
        memory = (ctypes.c_char * empty.nbytes).from_address(pinned.value or 0)
        return Buffer(
            np.frombuffer(memoryview(memory).cast("B"), dtype).reshape(shape), device.value or 0, pinned.value or 0
        )

    def free(self, buffer: Buffer) -> None:
        """Free an array; its host part must not be used any more."""
        self._call("cudaFree", ctypes.c_void_p(buffer.device))
        self._call("cudaFreeHost", ctypes.c_void_p(buffer.pinned))

    def to_device(self, buffer: Buffer, rows: int) -> None:
        """Begin to copy the first rows to the device."""
        self._copy(buffer.device, buffer.pinned, buffer.host[:rows].nbytes, _TO_DEVICE)

    def to_host(self, buffer: Buffer, rows: int) -> None:
        """Begin to copy the first rows from the device."""
        self._copy(buffer.pinned, buffer.device, buffer.host[:rows].nbytes, _TO_HOST)

    def wait(self) -> None:
        """Wait until everything on the stream is done.

        Raises:
            DeviceError: a kernel failed.
        """
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Free the stream; once is enough."""
        if self.stream:
            self._call("cudaStreamDestroy", ctypes.c_void_p(self.stream))
        self.stream = 0

    def _copy(self, to: int, source: int, size: int, kind: Literal[1, 2]) -> None:
        addresses = ctypes.c_void_p(to), ctypes.c_void_p(source)
        stream = ctypes.c_void_p(self.stream)
        self._call("cudaMemcpyAsync", *addresses, ctypes.c_size_t(size), ctypes.c_int(kind), stream)

    def _attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), ctypes.c_int(0))
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401 - whatever ctypes passes
        code = int(getattr(self._library, name)(*arguments))
        if code == _OUT_OF_MEMORY:
            raise DeviceError(
                f"{name}: out of GPU memory (CUDA error 2); the running student is untouched: close other users of the "
                "GPU, or use ONNX Runtime"
            )
        if code:
            raise DeviceError(f"{name}: CUDA error {code}; see 'roadcast doctor', or use ONNX Runtime")
