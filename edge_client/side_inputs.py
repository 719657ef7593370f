"""The device's own inputs of a frame, as its source brings them: a pack's row, or a record that the plug-in reads."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np

from devices.sources import Frame
from edge_models.samples import F4
from edge_models.tasks import plugin_of
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec

LOG = logging.getLogger(__name__)
_TOLD = 16
"""Names of readings that are told at most: a record may hold any."""


class _Asked(Mapping[str, str]):
    """A record that remembers what was asked of it: the rest nobody knows, such as a name that is spelt otherwise."""

    def __init__(self, record: Mapping[str, str]) -> None:
        self._record, self.names = record, set[str]()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._record[name]

    def __iter__(self) -> Iterator[str]:
        self.names.update(self._record)
        return iter(self._record)

    def __len__(self) -> int:
        return len(self._record)


class SideInputs:
    """Finds what a personal head is given beside features.

    Args:
        spec: the task, of classes.

    Raises:
        ConfigError: the task has side inputs and its plug-in cannot be used.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._names, self._strange = spec.side, set[str]()
        self._read = plugin_of(spec).side if spec.side else None

    def of(self, frame: Frame) -> F4 | None:
        """(F,) float32, finite; None where the frame brings none, which a head takes for zeros.

        Raises:
            DataError: it brings others than the task has, or a record that the plug-in refuses.
        """
        if self._read is None:
            return None
        side = frame.side
        if frame.record is not None:
            record = _Asked(frame.record)
            side = self._read(record)
            self._tell(frame.record.keys() - record.names - self._strange)
        if side is not None and (side.shape != (len(self._names),) or not np.isfinite(side).all()):
            raise DataError(f"side inputs must be {len(self._names)} numbers: {', '.join(self._names)}")
        return side

    def _tell(self, strange: set[str]) -> None:
        for name in sorted(strange)[: _TOLD - len(self._strange)]:
            self._strange.add(name)
            LOG.warning("records hold a reading %r, of which this task knows nothing: look how it is spelt", name[:40])
