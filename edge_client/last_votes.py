"""What this device told last about the proxies, on disk: the report that the server has, and the one on its way.

The first is the base that the next is coded beside (`vote_codec`); the second becomes the first when it is
acknowledged, and is told again in full when the server does not have the base. Owns one file, and no link.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_client.disk import write_atomic
from edge_protocol.errors import LocalProtocolError
from edge_protocol.messages import PROXY_BYTES, CodedReport, KnowledgeReport
from edge_protocol.vote_codec import encode_votes, shape_of
from edge_protocol.votes import Votes

VOTES_FILE = "votes.msgpack"
"""Name of the file in a device's state folder."""


class _Memory(msgspec.Struct, frozen=True):
    """What the file says.

    Attributes:
        known: the last report that the server has accepted.
        sent: the last one told.
        message_id: that carried `sent`.
    """

    known: KnowledgeReport | None = None
    sent: KnowledgeReport | None = None
    message_id: bytes = b""


class LastVotes:
    """The file, read whenever it is asked; one that is damaged or gone is as none, and costs a report in full.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def before(self, label_space: str, proxy: str) -> Votes | None:
        """The votes that the server has of this device on this proxy set (its whole hash), if any."""
        known = self._read().known
        fits = known is not None and (known.label_space, known.proxy) == (label_space, proxy)
        return known.votes if known is not None and fits else None

    def code(self, report: KnowledgeReport, message_id: bytes) -> CodedReport:
        """Code a report beside what the server has, and remember that it is on its way.

        Raises:
            StoreError: the disk refused; code it with `in_full`, which needs no memory.
        """
        known = self._read().known
        self._write(_Memory(known, report, message_id))
        if known is None or (known.label_space, known.proxy) != (report.label_space, report.proxy):
            return in_full(report)
        if shape_of(known.votes) != shape_of(report.votes):
            return in_full(report)
        return _coded(report, known)

    def accepted(self, message_id: bytes) -> None:
        """The server has the report that this message carried: it is the next base.

        Raises:
            StoreError: the disk refused; the server will not have the base, and ask for a report in full.
        """
        memory = self._read()
        if memory.sent is not None and memory.message_id == message_id:
            self._write(_Memory(msgspec.structs.replace(memory.sent, trunk=None)))

    def unknown(self, message_id: bytes) -> KnowledgeReport | None:
        """The server does not have the base of this message: forget it; return the report, to be told again in full.

        Returns:
            None when this message is not the last one told, or was told in full already.

        Raises:
            StoreError: the disk refused.
        """
        memory = self._read()
        if memory.sent is None or memory.known is None or memory.message_id != message_id:
            return None
        self._write(_Memory(None, memory.sent, message_id))
        return memory.sent

    def _read(self) -> _Memory:
        try:
            return msgspec.msgpack.decode(self._path.read_bytes(), type=_Memory)
        except (OSError, msgspec.MsgspecError, LocalProtocolError):
            return _Memory()

    def _write(self, memory: _Memory) -> None:
        write_atomic(self._path, msgspec.msgpack.encode(memory))


def in_full(report: KnowledgeReport) -> CodedReport:
    """A report coded without a base."""
    return _coded(report, None)


def _coded(report: KnowledgeReport, base: KnowledgeReport | None) -> CodedReport:
    beside = (base.votes, base.round) if base else (None, 0)
    votes = encode_votes(report.votes, *beside)
    short = bytes.fromhex(report.proxy)[:PROXY_BYTES]
    head = (report.task, report.label_space, report.round, report.release)
    return CodedReport(*head, short, report.examples, votes, report.trunk)
