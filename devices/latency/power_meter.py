"""Mean power of the board while something runs, sampled beside it; owns a thread for that time, and no sensor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

EVERY_S = 0.2


class PowerMeter:
    """Samples from entering to leaving. A board that says nothing at first is not asked again, and costs no thread.

    Args:
        read: watts now; None: not known.
        every_s: seconds between two samples.

    Attributes:
        watts: mean of the samples, once left; None: nothing was said.
    """

    def __init__(self, read: Callable[[], float | None], every_s: float = EVERY_S) -> None:
        self._read, self._every_s = read, every_s
        self._over = threading.Event()
        self._said: list[float] = []
        self._thread = threading.Thread(target=self._sample, name="power", daemon=True)
        self.watts: float | None = None

    def __enter__(self) -> Self:
        if self._read() is not None:  # before the work: the board is still at rest, so it does not count
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
            if not self._said:
                self._take()
        self.watts = sum(self._said) / len(self._said) if self._said else None

    def _sample(self) -> None:
        while not self._over.wait(self._every_s):
            self._take()

    def _take(self) -> None:
        watts = self._read()
        if watts is not None:
            self._said.append(watts)
