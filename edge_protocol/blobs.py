"""Blobs: content-addressed bytes cut into chunks, and what a receiver still lacks; pure, owns no disk and no broker.

The broker keeps each chunk as a retained message. The receiver asks for exactly the chunks it lacks, a small window at
a time, checks each against the hash list, and asks again for what does not come. Duplicates, reordering and restarts
are harmless because a chunk is named by what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice, takewhile

import msgspec

from edge_protocol.errors import DigestError, LocalProtocolError

CHUNK_BYTES = 60 * 1024
"""Small enough for every hosted broker (Azure retains ≤ 64 KB, AWS takes ≤ 128 KB)."""
MAX_BLOB_BYTES = 256 << 20
MAX_CHUNKS = 1 << 20
BATCH = 8
"""Chunks that are asked for together, when the window allows: what one SUBSCRIBE packet holds."""
_DIGEST_BYTES = 32


class BlobRef(msgspec.Struct, frozen=True, array_like=True):
    """Names a blob and everything needed to check it chunk by chunk.

    Attributes:
        sha256: 64 hex digits, hash of all bytes.
        size: bytes in all, 1 to 256 MiB.
        chunk_bytes: bytes of every chunk but the last.
        digests: the chunks' SHA-256, 32 bytes each, one after the other.
    """

    sha256: str
    size: int
    chunk_bytes: int
    digests: bytes

    def __post_init__(self) -> None:
        if not 0 < self.size <= MAX_BLOB_BYTES or not 0 < self.chunk_bytes <= MAX_BLOB_BYTES:
            raise LocalProtocolError(
                "oversized",
                f"blob of {self.size} bytes in chunks of {self.chunk_bytes}: sizes must be 1 to {MAX_BLOB_BYTES}",
            )
        if len(self.sha256) != 2 * _DIGEST_BYTES or set(self.sha256) - set("0123456789abcdef"):
            raise LocalProtocolError("bad-blob", f"blob hash {self.sha256[:80]!r} is not 64 hex digits")
        if len(self.digests) != self.chunks * _DIGEST_BYTES or self.chunks > MAX_CHUNKS:
            raise LocalProtocolError(
                "bad-blob", f"blob {self.sha256[:12]} has {self.chunks} chunks but {len(self.digests)} bytes of digests"
            )

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.size // self.chunk_bytes)

    def check_chunk(self, index: int, data: bytes) -> None:
        """Accept a chunk or say why not.

        Raises:
            DigestError: no such index, or the bytes are not that chunk's.
        """
        if not 0 <= index < self.chunks:
            raise DigestError(f"blob {self.sha256[:12]} has no chunk {index} (0 to {self.chunks - 1})")
        if sha256(data).digest() != self.digests[index * _DIGEST_BYTES : (index + 1) * _DIGEST_BYTES]:
            raise DigestError(
                f"chunk {index} of blob {self.sha256[:12]} does not match its hash; it will be fetched again"
            )


def cut(data: bytes, chunk_bytes: int = CHUNK_BYTES) -> tuple[BlobRef, list[bytes]]:
    """Cut bytes into chunks and name them.

    Raises:
        LocalProtocolError: nothing to cut, or more than `MAX_BLOB_BYTES`.
    """
    chunks = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    digests = b"".join(sha256(chunk).digest() for chunk in chunks)
    return BlobRef(sha256(data).hexdigest(), len(data), chunk_bytes, digests), chunks


@dataclass(slots=True)
class Pull:
    """What one receiver still lacks of one blob, and what it has asked for; time is an argument.

    Attributes:
        ref: the blob.
        have: indices already written down (a restart fills this from disk).
        window: chunks that may be asked for at once.
        timeout_s: after this long an asked-for chunk is asked for again.
        retries: chunks asked for again so far.
    """

    ref: BlobRef
    have: set[int] = field(default_factory=set)
    window: int = 16
    timeout_s: float = 5.0
    retries: int = 0
    _asked: dict[int, float] = field(default_factory=dict)
    _again: set[int] = field(default_factory=set)
    _low: int = 0

    @property
    def complete(self) -> bool:
        """Whether every chunk has arrived."""
        return len(self.have) == self.ref.chunks

    def missing(self) -> list[int]:
        """Indices not yet had, in order."""
        return [i for i in range(self.ref.chunks) if i not in self.have]

    def ask(self, now: float, most: int = MAX_CHUNKS) -> tuple[list[int], list[int]]:
        """Choose what to ask for, and remember it as asked for at `now`; once half the window is free, or `BATCH`.

        Args:
            now: seconds, by any clock that only moves forward.
            most: chunks to ask for in this call at most; what is due beyond them stays due.

        Returns:
            The indices to ask for, and those among them that were asked for in vain before.
        """
        due = takewhile(lambda asked: now - asked[1] >= self.timeout_s, self._asked.items())
        stale = [index for index, _ in islice(due, most)]
        for index in stale:
            del self._asked[index]  # `_asked` is in the order of its times
        room = self.window - len(self._asked) - len(stale)
        batch = room >= min(BATCH, self.window // 2) or len(self._asked) == len(stale) == 0
        fresh = self._fresh(min(room, most - len(stale))) if batch else []
        self.retries += len(stale)
        self._again.update(stale)
        self._asked.update(dict.fromkeys([*stale, *fresh], now))
        return [*stale, *fresh], stale

    def forget(self) -> None:
        """Forget what was asked for: the connection that asked is gone."""
        self._asked.clear()
        self._again.clear()

    def renew(self, now: float) -> None:
        """What was asked for was asked for once more, of another connection."""
        self._again.update(self._asked)
        self._asked = dict.fromkeys(self._asked, now)

    def waited_s(self, index: int, now: float) -> float | None:
        """Seconds since a chunk was asked for; None when it was not, or more than once, and nobody knows which came."""
        at = self._asked.get(index)
        return None if at is None or index in self._again else now - at

    def take(self, index: int, data: bytes) -> bool:
        """Check a chunk; return whether it is new and should be written down.

        Raises:
            DigestError: the bytes are not that chunk's; it stays missing.
        """
        self.ref.check_chunk(index, data)
        self._asked.pop(index, None)
        if index in self.have:
            return False
        self.have.add(index)
        return True

    def next_deadline(self) -> float | None:
        """Time at which the oldest request runs out, or None when nothing is asked for."""
        return min(self._asked.values()) + self.timeout_s if self._asked else None

    def _fresh(self, most: int) -> list[int]:
        """The first chunks that are neither had nor asked for."""
        found: list[int] = []
        index, held = self._low, True
        while len(found) < most and index < self.ref.chunks:
            if index not in self.have:
                held = False
                found += [index] * (index not in self._asked)
            index += 1
            self._low = index if held else self._low
        return found
