"""What each device said last, beside which it tells what it says next; opens coded reports. Pure; owns no round.

It holds one report a device and task, three bytes a sample, and comes back from the database after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import CodedReport, FullReport, KnowledgeReport, Report
from edge_protocol.task import TaskSpec
from edge_protocol.vote_codec import UNKNOWN_BASE, decode_votes

TOO_MANY_TRIES = "too-many-tries"
MOST_TRIES = 4
"""Coded reports of a device and task opened while a round is the newest: nothing else costs the server so much."""


class LastReports:
    """The last accepted report of each device and task."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, DeviceId], KnowledgeReport] = {}
        self._tries: dict[tuple[str, DeviceId], tuple[int, set[tuple[int, bool]]]] = {}

    def keep(self, device: DeviceId, report: FullReport) -> None:
        """Take an accepted report in place of the one before; neither class means nor a trunk's change are a base."""
        if isinstance(report, KnowledgeReport):
            self._last[report.task, device] = replace(report, trunk=None)
        else:
            self._last.pop((report.task, device), None)

    def round_of(self, task: TaskId, device: DeviceId) -> int:
        """Round of the last accepted report; 0 for none."""
        last = self._last.get((task, device))
        return last.round if last else 0

    def forget(self, task: TaskId, device: DeviceId) -> int:
        """Strike out a device's report of a task; return its round, 0 when there was none."""
        number = self.round_of(task, device)
        self._last.pop((task, device), None)
        return number

    def restore(self, reports: Mapping[DeviceId, FullReport]) -> None:
        """Take a task's accepted reports back from disk."""
        for device, report in reports.items():
            self.keep(device, report)

    def open(
        self, report: Report, device: DeviceId, spec: TaskSpec, proxy: str, number: int
    ) -> tuple[FullReport | None, str]:
        """Decode a report, or say why it cannot be: ``unknown-base``, or ``malformed`` when no base is to blame.

        An honest device answers a round beside its last report at most once, and in full at most once: so often one is
        decoded, and no further one (``too-many-tries``), for it costs the server more than the device.

        Args:
            report: of which everything but the stream has been checked.
            device: who sent it.
            spec: the task.
            proxy: hash of the proxy set that it answers.
            number: of the newest round.
        """
        if not isinstance(report, CodedReport):
            return report, ""
        coded, last = report.votes, self._last.get((report.task, device))
        fits = last is not None and (last.round, last.label_space, last.proxy) == (coded.base, spec.label_space, proxy)
        if coded.base and not fits:
            return None, UNKNOWN_BASE
        if not self._may_try(report, device, number):
            return None, TOO_MANY_TRIES
        try:
            votes = decode_votes(coded, spec.kind, last.votes if last is not None and coded.base else None)
        except RemoteProtocolError as error:
            return None, UNKNOWN_BASE if coded.base else error.reason
        head = (report.task, report.label_space, report.round, report.release)
        return KnowledgeReport(*head, proxy, report.examples, votes, report.trunk), ""

    def _may_try(self, report: CodedReport, device: DeviceId, number: int) -> bool:
        during, tried = self._tries.get((report.task, device), (number, set()))
        if during != number:
            tried = set()
        this = report.round, bool(report.votes.base)
        if this in tried or len(tried) >= MOST_TRIES:
            return False
        self._tries[report.task, device] = number, {*tried, this}
        return True
