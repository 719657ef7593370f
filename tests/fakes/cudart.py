"""A CUDA runtime whose device is this process's own memory; out of memory and errors on demand."""

from __future__ import annotations

import ctypes
from typing import Any


class FakeCudart:
    """Stands for ``libcudart``.

    Args:
        capability: of the GPU.
        memory: bytes that can be allocated on the device.
        broken: what every call returns, 35 for a driver that is too old.
    """

    def __init__(self, capability: tuple[int, int] = (8, 7), memory: int = 1 << 30, broken: int = 0) -> None:
        self._capability, self._free, self._broken = capability, memory, broken
        self.blocks: dict[int, Any] = {}
        self.streams: set[int] = set()

    def cudaStreamCreate(self, out: Any) -> int:  # noqa: N802 - CUDA's names
        """Make a stream."""
        if not self._broken:
            out._obj.value = max(self.streams, default=0) + 1
            self.streams.add(out._obj.value)
        return self._broken

    def cudaStreamDestroy(self, stream: Any) -> int:  # noqa: N802
        """Destroy a stream, once."""
        self.streams.remove(stream.value)
        return 0

    def cudaStreamSynchronize(self, stream: Any) -> int:  # noqa: N802
        """Everything is done already."""
        return 0 if stream.value in self.streams else 400

    def cudaDeviceGetAttribute(self, out: Any, number: Any, device: Any) -> int:  # noqa: N802
        """Know the compute capability."""
        out._obj.value = self._capability[{75: 0, 76: 1}[number.value]]
        return 0

    def cudaMalloc(self, out: Any, size: Any) -> int:  # noqa: N802
        """Allocate, while there is memory."""
        if size.value > self._free:
            return 2
        self._free -= size.value
        return self.cudaMallocHost(out, size)

    def cudaMallocHost(self, out: Any, size: Any) -> int:  # noqa: N802
        """Allocate."""
        block = ctypes.create_string_buffer(size.value)
        out._obj.value = ctypes.addressof(block)
        self.blocks[ctypes.addressof(block)] = block
        return 0

    def cudaFree(self, address: Any) -> int:  # noqa: N802
        """Free, once."""
        self._free += len(self.blocks.pop(address.value))
        return 0

    def cudaFreeHost(self, address: Any) -> int:  # noqa: N802
        """Free, once."""
        del self.blocks[address.value]
        return 0

    def cudaMemcpyAsync(self, to: Any, source: Any, size: Any, kind: Any, stream: Any) -> int:  # noqa: N802
        """Copy between blocks of this runtime."""
        if stream.value not in self.streams or kind.value not in {1, 2}:
            return 400
        ctypes.memmove(to, source, size.value)
        return 0
