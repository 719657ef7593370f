"""How durable messages were answered, so that one that comes again gets the same answer; pure, bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

from broker_server.records import SeenMessage
from edge_protocol.messages import Header


class SeenMessages:
    """The newest answers, oldest first.

    Args:
        keep_s: answers older than this are forgotten.
        limit: most answers held; the oldest go first.
    """

    def __init__(self, *, keep_s: float, limit: int) -> None:
        self.keep_s = keep_s
        self._limit = limit
        self._seen: OrderedDict[bytes, SeenMessage] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def get(self, message_id: bytes) -> SeenMessage | None:
        """The answer this message got, or None when it is new."""
        return self._seen.get(message_id)

    def put(self, seen: SeenMessage) -> None:
        """Remember an answer, and forget what is too old or too much."""
        self._seen[seen.message_id] = seen
        while len(self._seen) > self._limit or seen.at_s - next(iter(self._seen.values())).at_s > self.keep_s:
            self._seen.popitem(last=False)

    def restore(self, seen: Iterable[SeenMessage]) -> None:
        """Take answers back from disk, oldest first."""
        for message in seen:
            self.put(message)


def name_of(header: Header) -> bytes:
    """Name a message by sender and id: nobody can use up the id of another device's message."""
    return blake2b(header.message_id, key=header.sender.encode()[:64], digest_size=16).digest()
