"""What TensorRT complains of, kept for a message of ours; it returns None or False and says why only here."""

from __future__ import annotations

from typing import Any

from devices.runners.trt_versions import Trt

_KEPT = 3
_LONGEST = 300


def logger_of(trt: Trt) -> Any:  # noqa: ANN401 - a class of a module that is imported late
    """Make a logger that keeps the last errors; ``said()`` returns them in one line and forgets them."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # its base is known at run time only
        """Keeps errors, drops the rest."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:  # noqa: ANN401 - an enumeration of TensorRT
            """Take what TensorRT says."""
            if severity in {trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR}:
                self._lines = [*self._lines, " ".join(message.split())[:_LONGEST]][-_KEPT:]

        def said(self) -> str:
            """Return the last errors, in one line."""
            lines, self._lines = self._lines, []
            return "; ".join(lines)

    return Logger()
