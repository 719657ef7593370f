"""Keeps the drift detector over restarts and turns its alarms into events; owns ``drift.json``, no rule."""

from __future__ import annotations

import logging
from contextlib import suppress
from math import inf
from pathlib import Path

import msgspec

from edge_client.disk import write_atomic
from edge_client.doubts import Doubts
from edge_client.drift import Alarm, Cell, DriftConfig, DriftDetector
from edge_client.effects import Drifted
from edge_protocol.errors import StoreError

LOG = logging.getLogger(__name__)
_SAVE_S = 600.0
_ALARMS = 16


class DriftFile(msgspec.Struct, kw_only=True):
    """What ``drift.json`` holds.

    Attributes:
        release: whose shared head the cells are of.
        total: alarms since the device was installed.
        alarms: the last of them.
        cells: see `DriftDetector`; those that earlier versions wrote were of heads that rounds refitted: left out.
    """

    release: int = 0
    total: int = 0
    alarms: list[Alarm] = msgspec.field(default_factory=list)
    cells: dict[str, dict[int, Cell]] = msgspec.field(default_factory=dict, name="shared_cells")


class DriftWatch:
    """Feeds the detector; used by the pump alone.

    Args:
        path: of ``drift.json``; one that cannot be read is begun anew.
        config: how drift is told from chance.
        doubts: what the answers were worth.
    """

    def __init__(self, path: Path, config: DriftConfig, doubts: Doubts) -> None:
        self._path, self._doubts = path, doubts
        self._file = read_drift(path)
        self._detector = DriftDetector(config, self._file.cells)
        self._file.cells = self._detector.cells
        self._save_at = inf

    @property
    def total(self) -> int:
        """Alarms since the device was installed."""
        return self._file.total

    def serving(self, release: int) -> None:
        """A release answers from now on; another one's shared head is held against itself only."""
        if release != self._file.release:
            self._doubts.drain()
            self._detector.restart()
            self._file.release = release
            self._save_at = -inf

    def poll(self, now: float) -> list[Drifted]:
        """Say what has changed; write down now and then what is known."""
        found = [alarm for each in self._doubts.drain() if (alarm := self._detector.see(each))]
        for alarm in found:
            told = alarm.hour, alarm.condition, alarm.doubt, alarm.usual
            LOG.warning("drift at %02d h UTC under %s: doubt %.3g, usually %.3g", *told)
        self._file.total += len(found)
        self._file.alarms = [*self._file.alarms, *found][-_ALARMS:]
        if found or now >= self._save_at:
            self.save()
            self._save_at = now + _SAVE_S
        self._save_at = min(self._save_at, now + _SAVE_S)
        return [Drifted(alarm.hour, alarm.condition) for alarm in found]

    def save(self) -> None:
        """Write down what is known; a disk that refuses costs a commissioning, and nothing else."""
        with suppress(StoreError):
            write_atomic(self._path, msgspec.json.encode(self._file))


def read_drift(path: Path) -> DriftFile:
    """What was written down; nothing when it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=DriftFile)
    except (OSError, msgspec.DecodeError):
        return DriftFile()
