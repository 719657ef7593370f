"""How a network thread fills a bounded inbox: wait a little, then drop and say so. Owns no link."""

from __future__ import annotations

from collections import deque
from queue import Full
from typing import Final

from edge_protocol.transport.base import Inbox, Received, Refused, TransportEvent

PATIENCE_S: Final = 1.0
"""How long a full inbox holds up the link (so that the broker waits too) before a message is dropped."""
_OWED: Final = 256


class Delivery:
    """One thread's way into an inbox.

    A message that finds no room is dropped and counted; ``Refused("inbox-full")`` tells how many as soon as there is
    room. What the application must know (connected, disconnected, refused) is owed, and put before anything newer.

    Args:
        inbox: where events go.
        patience_s: how long to wait for room.
    """

    def __init__(self, inbox: Inbox, patience_s: float = PATIENCE_S) -> None:
        self._inbox, self._patience_s = inbox, patience_s
        self._owed: deque[TransportEvent] = deque(maxlen=_OWED)
        self._arrived: deque[Received] = deque()
        self._dropped = 0

    def put(self, event: TransportEvent) -> None:
        """Put an event, waiting for room at most `patience_s`."""
        if isinstance(event, Received):
            patience_s = 0.0 if self._dropped else self._patience_s  # who has waited in vain waits no more
            if not (self._settled(patience_s) and self._fits(event, patience_s)):
                self._dropped += 1
        else:
            self.owe(event)
            self._settled(self._patience_s)

    def arrived(self, message: Received) -> None:
        """Note a message for the next `deliver`; cannot fail."""
        self._arrived.append(message)

    def deliver(self, keep: int = 0) -> None:
        """Put what is owed, and what has arrived but for the newest `keep`.

        All of a turn at once: the first wakes the thread that takes them out, which then contends with this one. An
        exception of the inbox costs one message; those after it come with the next turn.
        """
        self.settle()
        try:
            while len(self._arrived) > keep:
                self.put(self._arrived.popleft())
        except Exception as error:  # noqa: BLE001  whatever it is, the link must outlive it
            self.put(Refused("callback-failed", repr(error)))

    def forget(self) -> None:
        """What has arrived belongs to a connection that is gone."""
        self._arrived.clear()

    def owe(self, event: TransportEvent) -> None:
        """Note an event for the next `put` or `settle`; cannot fail."""
        self._owed.append(event)

    def settle(self) -> None:
        """Put what is owed, as far as there is room now."""
        self._settled(0)

    def _settled(self, timeout_s: float) -> bool:
        while self._owed:
            if not self._fits(self._owed[0], timeout_s):
                return False
            self._owed.popleft()
        if self._dropped:
            detail = f"{self._dropped} messages were dropped; take them out faster"
            if not self._fits(Refused("inbox-full", detail), timeout_s):
                return False
            self._dropped = 0
        return True

    def _fits(self, event: TransportEvent, timeout_s: float) -> bool:
        try:
            self._inbox.put(event, block=timeout_s > 0, timeout=timeout_s)
        except Full:
            return False
        return True
