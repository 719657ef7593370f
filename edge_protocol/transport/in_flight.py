"""What was handed over and is not acknowledged, and what the broker was seen not to take; pure, owns no lock.

A broker of MQTT 3.1.1 does not tell its limit: over a larger message it closes the link, as often as it comes. It
acknowledges in the order of sending (MQTT 3.1.1, 4.6), so what was in the air is known when a link ends.
"""

from __future__ import annotations

from collections import deque
from typing import Final

STRIKES: Final = 5
"""Links in a row that end under a message larger than any acknowledged, before it is held for what ends them."""
SLACK: Final = 1024
"""Bytes by which it has to be larger: one chunk is like another."""
FORGET_S: Final = 3600.0
"""How long a limit that was found out is believed: links end for other reasons, and brokers are set up anew."""
PACKET_OVERHEAD: Final = 9
_ADVICE: Final = "set broker.max_packet_bytes to the broker's own limit, or raise that one"


class InFlight:
    """Sizes of unacknowledged messages, topic and payload, and the largest that may be sent.

    Args:
        limit: bytes of a whole packet, from the settings.
    """

    def __init__(self, limit: int) -> None:
        self._sizes: deque[int] = deque()
        self._told = limit
        self._acknowledged = 0
        self._under: list[int] = []
        self._found: tuple[int, float] | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    def refusal(self, size: int, now: float) -> str:
        """Say why a message of `size` bytes is not to be sent at `now` (s), "" when it is."""
        if size + PACKET_OVERHEAD > self._told:
            return f"exceeds the broker's {self._told}"
        if self._found is not None and now < self._found[1] and size >= self._found[0]:
            return f"is too large for the broker: {STRIKES} links ended under one of {self._found[0]} bytes; {_ADVICE}"
        return ""

    def sent(self, size: int) -> None:
        """A message goes out."""
        self._sizes.append(size)

    def not_sent(self) -> None:
        """The last one did not go out after all."""
        self._sizes.pop()

    def acknowledged(self) -> None:
        """The broker has the oldest."""
        self._acknowledged = max(self._acknowledged, self._sizes.popleft())

    def lost(self, now: float) -> str:
        """The link has ended; return what was found out of the broker's limit, or ""."""
        if not self._sizes:
            return ""
        largest = max(self._sizes)
        self._sizes.clear()
        self._under = [*self._under, largest] if largest > self._acknowledged + SLACK else []
        if len(self._under) < STRIKES:
            return ""
        smallest, self._under = min(self._under), []
        self._found = smallest, now + FORGET_S
        return (
            f"{STRIKES} links in a row ended under a message of {smallest} bytes or more, the largest acknowledged had "
            f"{self._acknowledged}; {_ADVICE}"
        )
