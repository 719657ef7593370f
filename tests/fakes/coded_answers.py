"""How a simulated device tells its reports: beside the last one acknowledged, in memory instead of on a disk."""

from __future__ import annotations

from edge_protocol import messages as m
from edge_protocol.vote_codec import UNKNOWN_BASE, encode_votes


class CodedAnswers:
    """What one device has told, and what the server has of it.

    Attributes:
        known: the last report that was accepted; set to None or to another to make a device that remembers wrongly.
        bytes: of all votes coded so far.
    """

    def __init__(self) -> None:
        self.known: m.KnowledgeReport | None = None
        self.bytes = 0
        self._sent: dict[bytes, m.KnowledgeReport] = {}

    def code(self, report: m.KnowledgeReport) -> m.CodedReport:
        """A report beside what is known."""
        base = self.known if self.known is not None and self.known.proxy == report.proxy else None
        votes = encode_votes(report.votes, *((base.votes, base.round) if base else (None, 0)))
        self.bytes += len(votes.data)
        short = bytes.fromhex(report.proxy)[: m.PROXY_BYTES]
        head = (report.task, report.label_space, report.round, report.release)
        return m.CodedReport(*head, short, report.examples, votes, report.trunk)

    def sent(self, message_id: bytes, report: m.KnowledgeReport) -> None:
        """A report is on its way."""
        self._sent[message_id] = report

    def answered(self, ack: m.Ack) -> m.KnowledgeReport | None:
        """The server has answered a message: what has to be told again, in full, if anything."""
        report = self._sent.pop(ack.message_id, None)
        if report is not None and ack.accepted:
            self.known = report
        if report is None or ack.reason != UNKNOWN_BASE:
            return None
        self.known = None
        return report
