"""What the board says of itself while it works: temperature, load, and how its frames fare; owns no limit."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from devices.boards import Machine
from devices.boards.thermal import hottest, read_zones
from edge_client.governor import Reading


class Frames(Protocol):
    """What is counted of the frames."""

    @property
    def frames(self) -> int:
        """That arrived and do not wait any more."""
        ...

    @property
    def queue_dropped(self) -> int:
        """Of these, that gave way to newer ones."""
        ...


class Inferring(Protocol):
    """The part of `Inference` that is watched."""

    @property
    def counters(self) -> Frames:
        """Since the start."""
        ...

    def latency_ms(self) -> dict[str, float]:
        """Percentiles of the last frames."""
        ...


class BoardWatch:
    """Reads the board; each call tells of the time since the one before.

    Args:
        inference: answers the frames.
        root: where ``proc`` and ``sys`` are.
        cores: of the board.
    """

    def __init__(self, inference: Inferring, root: Path = Path("/"), cores: int | None = None) -> None:
        self._inference, self._root, self._machine = inference, root, Machine(root)
        self._cores = cores or os.cpu_count() or 1
        self._frames = self._dropped = 0

    def __call__(self) -> Reading:
        """Read once."""
        counters = self._inference.counters
        frames, dropped = counters.frames, counters.queue_dropped
        came, lost = frames - self._frames, dropped - self._dropped
        self._frames, self._dropped = frames, dropped
        return Reading(
            celsius=hottest(read_zones(self._machine)),
            drop_share=lost / came if came else None,
            latency_ms=self._inference.latency_ms().get("latency_p95_ms"),
            load=self._load(),
        )

    def _load(self) -> float | None:
        with suppress(OSError, ValueError, IndexError):
            return float((self._root / "proc/loadavg").read_text(encoding="ascii").split()[0]) / self._cores
        return None
