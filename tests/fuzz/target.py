"""Something that reads bytes: what it is fed, and what it may raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.mutate import Deep

Errors = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes:
        feed: gives it some.
        corpus: legal ones, to be spoilt.
        errors: all that it may raise.
        share: of the inputs that it gets, in thousandths; slow ones get few.
        deep: spoils what the bytes say, every second time.
    """

    feed: Callable[[bytes], object]
    corpus: list[bytes]
    errors: Errors
    share: int
    deep: Deep | None = None
