"""Packs as sources: images one by one with their labels hidden, or one row of readings per interval."""

from __future__ import annotations

import time

from devices.closing import Closing
from devices.packs import UNLABELLED, ImagePack, SeriesPack
from devices.packs.pack import I8
from devices.sources.base import Frame, Pace


class ImagePackSource(Closing):
    """Plays images of a pack in order; a frame is named after its row, so that in each pass it has the same name."""

    def __init__(self, pack: ImagePack, rows: I8, *, name: str, pace: Pace, loop: bool, labels: bool) -> None:
        """Begin.

        Args:
            pack: the images.
            rows: (N,) int64, which of them to play.
            name: the source's.
            pace: when.
            loop: again and again.
            labels: whether frames carry the labels of the pack (False plays the part of a camera).
        """
        self._pack, self._rows, self._name, self._pace = pack, rows, name, pace
        self._loop, self._labels = loop and len(rows) > 0, labels
        self._next = 0

    @property
    def ended(self) -> bool:
        """Whether the last image was delivered."""
        return self._next >= len(self._rows) and not self._loop

    def read(self, timeout_s: float) -> Frame | None:
        """The next image, at this moment's time; None before its turn."""
        if self.ended or not self._pace.sleep(timeout_s):
            return None
        at, pack = int(self._rows[self._next % len(self._rows)]), self._pack
        self._next += 1
        label = int(pack.labels[at])
        return Frame(
            sample=f"{self._name}-{at}",
            at_s=time.time(),
            image=pack.images[at],
            label=pack.classes[label] if self._labels and label != UNLABELLED else None,
            side=pack.side[at] if pack.side_names else None,
        )


class SeriesPackSource(Closing):
    """Plays the rows of a series; each frame carries its row's own time, however fast it is played.

    In a loop the time goes on rising: the second pass continues one interval after the first.

    Attributes:
        sensors: names of the readings.
    """

    def __init__(self, pack: SeriesPack, *, name: str, pace: Pace, loop: bool) -> None:
        self.sensors = pack.sensors
        self._pack, self._name, self._pace = pack, name, pace
        self._loop = loop and len(pack) > 0
        self._next = 0

    @property
    def ended(self) -> bool:
        """Whether the last row was delivered."""
        return self._next >= len(self._pack) and not self._loop

    def read(self, timeout_s: float) -> Frame | None:
        """The next row of readings; None before its turn."""
        if self.ended or not self._pace.sleep(timeout_s):
            return None
        passes, at = divmod(self._next, len(self._pack))
        self._next += 1
        time_s = self._pack.time_s
        period_s = time_s[-1] - time_s[0] + self._pack.interval_s
        at_s = float(time_s[at] + passes * period_s)
        return Frame(sample=f"{self._name}-{int(at_s)}", at_s=at_s, readings=self._pack.values[at])
