"""What the device has just seen: for labels that come later, for probations, and for the replay store.

Written by the inference thread, read by others; holds a bounded number of raw samples in memory and owns no file.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edge_client.doubts import Doubts
from edge_client.replay import Kept

RECENT = 256
_WAITING = 4096
_FEW = 16


class Seen:
    """Bounded memory of raw samples.

    Args:
        every_s: seconds between two unlabelled samples that are kept for the replay store.
        recent: samples remembered for a label that comes later.

    Attributes:
        total: samples seen since the start.
        overrun: samples that the replay store did not take in time.
        doubts: how unsure the answers were.
    """

    def __init__(self, every_s: float, recent: int = RECENT) -> None:
        self.total = 0
        self.overrun = 0
        self.doubts = Doubts()
        self._every_s = every_s
        self._next_s = -np.inf
        self._recent: deque[Kept] = deque(maxlen=recent)
        self._batches: deque[npt.NDArray[np.generic]] = deque(maxlen=recent)
        self._waiting: deque[Kept] = deque()

    def see(self, kept: Kept, now: float) -> None:
        """Remember one image sample at `now` (s); keep it for good when it is labelled or the last one is long ago."""
        self.total += 1
        self._recent.append(kept)
        if kept.target != -1 or now >= self._next_s:
            self._next_s = now + self._every_s
            self.keep(kept)

    def see_windows(self, windows: npt.NDArray[np.generic]) -> None:
        """Remember what a row of sensors was answered on: (S, steps, 4) float32."""
        self.total += 1
        self._batches.append(windows)

    def keep(self, kept: Kept) -> None:
        """Hand a sample to the replay store."""
        if len(self._waiting) >= _WAITING:
            self.overrun += 1
        else:
            self._waiting.append(kept)

    def drain(self) -> list[Kept]:
        """Take what waits for the replay store."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]

    def labelled(self, sample: str, target: int) -> bool:
        """Keep a remembered sample with its class; False when it is not remembered (any more)."""
        for kept in reversed(self._recent.copy()):
            if kept.sample == sample:
                self.keep(replace(kept, target=target))
                return True
        return False

    def latest_samples(self) -> list[npt.NDArray[np.generic]]:
        """A few of the last raw samples: each (*raw_shape)."""
        return [sample for batch in self.latest(_FEW) for sample in batch[:_FEW]]

    def latest(self, count: int) -> list[npt.NDArray[np.generic]]:
        """The last raw batches, at most `count`: each (N, *raw_shape)."""
        images = [kept.raw[None] for kept in self._recent.copy()]
        return [*images, *self._batches.copy()][-count:] if count else []
