"""The device's own inputs of a frame, as its source brings them: a pack's row, or a record that the plug-in reads."""

from __future__ import annotations

import numpy as np

from devices.sources import Frame
from edge_models.samples import F4
from edge_models.tasks import plugin_of
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec


class SideInputs:
    """Finds what a personal head is given beside features.

    Args:
        spec: the task, of classes.

    Raises:
        ConfigError: the task has side inputs and its plug-in cannot be used.
    """

    def __init__(self, spec: TaskSpec) -> None:
        self._names = spec.side
        self._read = plugin_of(spec).side if spec.side else None

    def of(self, frame: Frame) -> F4 | None:
        """(F,) float32, finite; None where the frame brings none, which a head takes for zeros.

        Raises:
            DataError: it brings others than the task has, or a record that the plug-in refuses.
        """
        if self._read is None:
            return None
        side = frame.side if frame.record is None else self._read(frame.record)
        if side is not None and (side.shape != (len(self._names),) or not np.isfinite(side).all()):
            raise DataError(f"side inputs must be {len(self._names)} numbers: {', '.join(self._names)}")
        return side
