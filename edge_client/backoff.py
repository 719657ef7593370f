"""When to try again: doubling pauses, spread over the fleet; pure, owns no clock and no random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32


@dataclass(slots=True)
class Backoff:
    """Pauses that double from `first_s` to `longest_s`, stretched 0.75 to 1.25 times by device: fleets spread.

    Attributes:
        device: name that decides the spread.
        failures: in a row so far.
        at: time of the next attempt (s), None when none is due.
    """

    device: str
    first_s: float = 2.0
    longest_s: float = 300.0
    failures: int = 0
    at: float | None = None

    def fail(self, now: float) -> None:
        """Count a failure at `now` (s) and set the time of the next attempt."""
        spread = 0.75 + 0.5 * crc32(self.device.encode()) / 2**32
        self.at = now + spread * min(self.first_s * 2 ** min(self.failures, 30), self.longest_s)
        self.failures += 1

    def due(self, now: float) -> bool:
        """Tell whether an attempt is due; it is due once."""
        if self.at is None or now < self.at:
            return False
        self.at = None
        return True

    def reset(self) -> None:
        """Forget the failures."""
        self.failures, self.at = 0, None
