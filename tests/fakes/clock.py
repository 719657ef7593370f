"""A clock that moves when it is told to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FakeClock:
    """Seconds since 1970, as the test says."""

    now: float = 1_700_000_000.0
    set_by_s: float = 0.0

    def __call__(self) -> float:
        """Read the clock."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def set(self, seconds: float) -> None:
        """Show that many seconds more, or less, without letting time pass."""
        self.now += seconds
        self.set_by_s += seconds

    def steady(self) -> float:
        """Read the clock that nobody sets."""
        return self.now - self.set_by_s
