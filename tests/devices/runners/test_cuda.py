"""CUDA's runtime through ctypes: memory is freed, errors have names, a machine without one is told what to do."""

from __future__ import annotations

import numpy as np
import pytest

from devices.runners.cuda import Cuda, load_cudart
from edge_protocol.errors import DeviceError, NotReadyError
from tests.fakes.cudart import FakeCudart


def test_an_array_goes_to_the_device_and_back() -> None:
    """Rows are copied there and back, and everything is freed at the end."""
    library = FakeCudart()
    cuda = Cuda(library)
    buffer = cuda.allocate((3, 2), np.float32)
    buffer.host[:] = [[1, 2], [3, 4], [5, 6]]
    cuda.to_device(buffer, 2)
    buffer.host[:] = 0
    cuda.to_host(buffer, 3)
    cuda.wait()
    assert buffer.host.tolist() == [[1, 2], [3, 4], [0, 0]]
    assert cuda.compute_capability() == "8.7"
    cuda.free(buffer)
    cuda.close()
    cuda.close()
    assert not library.blocks
    assert not library.streams


def test_out_of_memory_is_said_so() -> None:
    """CUDA's error 2 becomes a sentence with what to do."""
    with pytest.raises(DeviceError, match=r"out of GPU memory.*untouched"):
        Cuda(FakeCudart(memory=16)).allocate((100,), np.float32)


def test_a_driver_that_is_too_old_is_named() -> None:
    """Any other code is shown with the call."""
    with pytest.raises(DeviceError, match="cudaStreamCreate: CUDA error 35"):
        Cuda(FakeCudart(broken=35))


def test_the_runtime_is_looked_for_under_its_names() -> None:
    """Newer names are tried after the plain one; without any there is a remedy."""
    asked = []

    def load(name: str) -> object:
        asked.append(name)
        if name.endswith(".12"):
            return "found"
        raise OSError

    assert load_cudart(load) == "found"
    assert asked == ["libcudart.so", "libcudart.so.13", "libcudart.so.12"]

    def nothing(name: str) -> object:
        raise OSError(name)

    with pytest.raises(NotReadyError, match="libcudart"):
        load_cudart(nothing)
