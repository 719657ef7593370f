"""What every source of frames or readings is, and the pace it keeps; owns no camera and no file."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]
Fault = Literal["black", "frozen", "stalled", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One look at the world.

    Attributes:
        sample: name under which an operator may label it; it means this one look, and no other after a restart.
        at_s: when it was taken, seconds since the epoch.
        image: (H, W, 3) uint8 RGB; None for readings, and where a fault left nothing to see.
        readings: (S,) float32, NaN where a sensor is silent; None for images.
        label: name of its class where the source knows it.
        side: (F,) float32, the device's own tabular inputs.
        record: the same as they were read, by name, as text; "" where nothing was measured; None: there is none.
        condition: what the source says of the scene, such as ``night``; "" where it says nothing.
        fault: why this frame must count as missing, never as an empty road; None for a good one.
        decode_s: seconds of decoding, within `Source.read` or, for a video, in a process of its own; None: unknown.
    """

    sample: str
    at_s: float
    image: U1 | None = None
    readings: F4 | None = None
    label: str | None = None
    side: F4 | None = None
    record: Mapping[str, str] | None = None
    condition: str = ""
    fault: Fault | None = None
    decode_s: float | None = None


class Source(Protocol):
    """Delivers frames until it has ended; belongs to one thread."""

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        ...

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame, or None when none came within `timeout_s` seconds or the source has ended.

        Raises:
            SourceError: it cannot deliver and does not mend itself.
        """
        ...

    def close(self) -> None:
        """Let go of everything; more than once is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass
class Pace:
    """Evenly spaced turns; time is an argument.

    Attributes:
        rate_hz: turns a second; inf or None for as fast as asked.
    """

    rate_hz: float | None
    _due: float = field(default=-math.inf, init=False)

    @property
    def interval_s(self) -> float:
        """Seconds between two turns."""
        return 1 / self.rate_hz if self.rate_hz else 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until the next turn, 0 when it is due."""
        return max(0.0, self._due - now)

    def turn(self, now: float) -> None:
        """A turn was taken. Who is a whole turn late starts a new rhythm and does not race to catch up."""
        self._due = (self._due if now - self._due < self.interval_s else now) + self.interval_s

    def sleep(self, timeout_s: float) -> bool:
        """Wait for the next turn, at most `timeout_s`; True when the turn is there (and is taken)."""
        wait_s = self.wait_s(time.monotonic())
        time.sleep(min(wait_s, timeout_s))
        if wait_s > timeout_s:
            return False
        self.turn(time.monotonic())
        return True
