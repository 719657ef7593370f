"""ONNX Runtime with a GPU that is not there: real sessions on the CPU, under the names of providers of one's choice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class FakeRuntime:
    """Stands for the module.

    Args:
        available: providers that it lists, beside the CPU's.
        runs: provider that runs every node, whatever was asked for.
        version: that it claims.
        memory: bytes that one array on the GPU may have.

    Attributes:
        asked: name and options of the first provider, per session.
        models: what each session was made of: bytes, or the path of a file.
        allocated: shape of each array that was made on the GPU.
        bound: name and device of each array that was bound.
        copied: arrays copied to the GPU.
    """

    SessionOptions = onnxruntime.SessionOptions

    def __init__(self, *available: str, runs: str, version: str = "1.31.1", memory: int = 1 << 30) -> None:
        self._available, self.runs, self.__version__, self.memory = available, runs, version, memory
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.models: list[bytes | str] = []
        self.allocated: list[tuple[int, ...]] = []
        self.bound: list[tuple[str, str]] = []
        self.copied = 0
        self.OrtValue = _Values(self)

    def get_available_providers(self) -> list[str]:
        """What is listed, which says nothing."""
        return [*self._available, "CPUExecutionProvider"]

    def InferenceSession(self, model: bytes | str, options: Any, *, providers: list[Any]) -> _Session:  # noqa: N802
        """A session on the CPU."""
        self.asked.append(providers[0])
        self.models.append(model)
        return _Session(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), self)


class _Values:
    """Stands for the class `OrtValue`; on the host it is the real one."""

    ortvalue_from_numpy = staticmethod(onnxruntime.OrtValue.ortvalue_from_numpy)

    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime

    def ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: type[np.generic], device_type: str = "cpu", device_id: int = 0
    ) -> onnxruntime.OrtValue:
        """An array, on the GPU as long as there is memory."""
        made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, element_type)
        if device_type == "cpu":
            return made
        if (device_type, device_id) != ("cuda", 0):
            raise RuntimeError(f"Unsupported device type: {device_type}")
        size = made.tensor_size_in_bytes()
        if size > self._runtime.memory:
            raise RuntimeError(
                "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal Failed to allocate memory for "
                f"requested buffer of size {size}"
            )
        self._runtime.allocated.append(tuple(shape))
        return _OnDevice(made._get_c_value(), self._runtime)


class _OnDevice(onnxruntime.OrtValue):  # type: ignore[misc]  # has no types
    """An array of its own memory that says it lies on the GPU."""

    def __init__(self, value: Any, runtime: FakeRuntime) -> None:
        super().__init__(value)
        self._runtime = runtime

    def device_name(self) -> str:
        """As of the real one."""
        return "cuda"

    def update_inplace(self, data: np.ndarray) -> None:
        """Copy; as in 1.20, only what lies in one piece."""
        if not data.flags.c_contiguous:
            raise RuntimeError("the array must be contiguous")
        self._runtime.copied += 1
        super().update_inplace(data)


class _Binding(onnxruntime.IOBinding):  # type: ignore[misc]  # has no types
    """The real one, which remembers what was bound."""

    def __init__(self, session: onnxruntime.InferenceSession, runtime: FakeRuntime) -> None:
        super().__init__(session)
        self._runtime = runtime

    def bind_ortvalue_input(self, name: str, ortvalue: onnxruntime.OrtValue) -> None:
        """Bind an input."""
        self._runtime.bound.append((name, ortvalue.device_name()))
        super().bind_ortvalue_input(name, ortvalue)

    def bind_ortvalue_output(self, name: str, ortvalue: onnxruntime.OrtValue) -> None:
        """Bind an output."""
        self._runtime.bound.append((name, ortvalue.device_name()))
        super().bind_ortvalue_output(name, ortvalue)


class _Session:
    """Answers on the CPU and says that another provider did."""

    def __init__(self, session: onnxruntime.InferenceSession, runtime: FakeRuntime) -> None:
        self._session, self._runtime = session, runtime
        self.run = session.run
        self.run_with_iobinding = session.run_with_iobinding

    def io_binding(self) -> _Binding:
        """Buffers to be bound."""
        return _Binding(self._session, self._runtime)

    def end_profiling(self) -> str:
        """Rewrite the record: every node was the other provider's."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if "provider" in event.get("args", {}):
                event["args"]["provider"] = self._runtime.runs
        path.write_text(json.dumps(events))
        return str(path)
