"""ONNX Runtime with a GPU that is not there: real sessions on the CPU, under the names of providers of one's choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime


class FakeRuntime:
    """Stands for the module.

    Args:
        available: providers that it lists, beside the CPU's.
        runs: provider that runs every node, whatever was asked for.
        version: that it claims.

    Attributes:
        asked: name and options of the first provider, per session.
        models: what each session was made of: bytes, or the path of a file.
    """

    SessionOptions = onnxruntime.SessionOptions
    OrtValue = onnxruntime.OrtValue

    def __init__(self, *available: str, runs: str, version: str = "1.31.1") -> None:
        self._available, self.runs, self.__version__ = available, runs, version
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.models: list[bytes | str] = []

    def get_available_providers(self) -> list[str]:
        """What is listed, which says nothing."""
        return [*self._available, "CPUExecutionProvider"]

    def InferenceSession(self, model: bytes | str, options: Any, *, providers: list[Any]) -> _Session:  # noqa: N802
        """A session on the CPU."""
        self.asked.append(providers[0])
        self.models.append(model)
        return _Session(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), self.runs)


class _Session:
    """Answers on the CPU and says that another provider did."""

    def __init__(self, session: onnxruntime.InferenceSession, runs: str) -> None:
        self._session, self._runs = session, runs
        self.run = session.run

    def end_profiling(self) -> str:
        """Rewrite the record: every node was the other provider's."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if "provider" in event.get("args", {}):
                event["args"]["provider"] = self._runs
        path.write_text(json.dumps(events))
        return str(path)
