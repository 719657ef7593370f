"""What devices report: each report is counted, kept although its round is over, or refused with a reason; pure.

Owns what each device said last; owns no round. A report that comes too late for its round is still what its device says
of the same proxies: it is kept under its own round's number, so that later rounds count it with its true age.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker_server.distil_job import votes_of
from broker_server.effects import Effect, ForgetReports, SaveReport, SaveRound
from broker_server.last_reports import TOO_MANY_TRIES, LastReports
from broker_server.records import StoredReport
from broker_server.registry import Device
from broker_server.rounds import REPORT_ROUNDS, is_late, refusal
from broker_server.task_rounds import TaskRounds
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import Report
from edge_protocol.vote_codec import UNKNOWN_BASE

Answer = tuple[list[Effect], str]
"""What follows from a durable message, and why it was refused ("" when it was not)."""


class Intake:
    """Takes reports for the rounds of every task.

    Args:
        tasks: whose rounds ask for them.

    Attributes:
        last: what each device said last.
    """

    def __init__(self, tasks: Mapping[TaskId, TaskRounds]) -> None:
        self._tasks = tasks
        self.last = LastReports()

    def take(self, device: DeviceId, message_id: bytes, report: Report, now: float) -> Answer:
        """Take a report of a registered device."""
        task = self._tasks.get(TaskId(report.task))
        if task is None:
            return [], "wrong-task"
        current, spec = task.round, task.setup.spec
        reason = refusal(report, spec, current, device, self.last.round_of(spec.task_id, device))
        late = current is None or is_late(report, current)
        if current is None or (reason and late):
            return [], reason
        opened = None
        if not reason:
            sha256 = current.proxy.sha256 if current.proxy else ""
            opened, reason = self.last.open(report, device, spec, sha256, current.number)
        if reason in {UNKNOWN_BASE, TOO_MANY_TRIES} or (opened is None and report.round != current.number):
            return [], reason
        if opened is None:
            current.refuse(device, reason)
            return [SaveRound(current.record(spec)), *task.advance(now)], reason
        self.last.keep(device, opened)
        kept = votes_of(opened) if late else opened
        stored = StoredReport(round=report.round, device=device, message_id=message_id, received_s=now, report=kept)
        if late:
            return [SaveReport(stored)], ""
        current.take(device, message_id)
        return [SaveReport(stored), *task.advance(now)], ""

    def unreadable(self, device: Device, named: str | None, reason: str, now: float) -> list[Effect]:
        """Note in the round that collects from a device that its report could not be read: NaN, a wrong shape, junk.

        Args:
            device: whose topic it came on.
            named: the task that it seems to be of; None when not even that can be read: then it is of every task.
            reason: for the operator.
            now: seconds since 1970.
        """
        names = device.tasks.keys() & self._tasks.keys()
        told = sorted(names) if named is None else [name for name in names if name == named]
        return [effect for name in told for effect in self._tasks[name].refuse(device.device, reason, now)]

    def forget(self, device: Device, now: float) -> list[Effect]:
        """Leave out what a device has ever said, in every task: it was retired."""
        effects: list[Effect] = [ForgetReports(device.device)]
        for name, task in self._tasks.items():
            means = task.setup.proxy is None and name in device.tasks  # of which none is kept here: it may be heard
            ended = max(task.round.number - REPORT_ROUNDS, 0) if task.round else 0
            heard = self.last.forget(name, device.device) > ended or means
            effects += task.forget(device.device, now, heard=heard)
        return effects
