"""What the fleet says over MQTT, as one picture of it: pure. Owns no connection and no clock (see `watch`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.errors import RoadcastError
from edge_protocol.ids import DeviceId, FleetId, TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.topics import Presence, ReleaseTopic, RoundTopic, Topics, Uplink

COMMITTED = "committed"


@dataclass(slots=True)
class DeviceView:
    """One device, as its messages tell.

    Attributes:
        tier, student: from its birth.
        release: counter of the release that answers its frames; 0 for none.
        deployment: last state of a deployment, with the reason when it failed.
        bytes_by_round: round → bytes (up, down) since the device's start, when that round was last seen open.
        latency: (seconds since the demo's start, p50 ms, p95 ms), oldest first.
        results: source → key → sum over its intervals.
        coverage: source → shares of its intervals in which frames were seen.
    """

    name: str
    online: bool = False
    task: str = ""
    tier: str = ""
    student: str = ""
    session: str = ""
    release: int = 0
    deployment: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    bytes_by_round: dict[int, tuple[int, int]] = field(default_factory=dict)
    latency: list[tuple[float, float, float]] = field(default_factory=list)
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    coverage: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class TaskView:
    """One task, as the server tells.

    Attributes:
        release: counter of the newest release.
        metrics: release → what the judge measured on the server's own validation data.
        round: number of the round called last; 0 before the first.
        collecting: whether that round takes reports.
    """

    release: int = 0
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    round: int = 0
    collecting: bool = False


class Observer:
    """Folds messages into views.

    Args:
        fleet: name of the fleet.

    Attributes:
        devices: by name, from their first message on.
        tasks: by name.
        refused: messages that could not be read, by reason.
    """

    def __init__(self, fleet: str) -> None:
        self.topics = Topics(FleetId(fleet))
        self.devices: dict[str, DeviceView] = {}
        self.tasks: dict[str, TaskView] = {}
        self.refused: dict[str, int] = {}
        self._fleet = fleet
        self._seen: set[bytes] = set()

    def filters(self, tasks: list[str]) -> list[str]:
        """What to subscribe to."""
        calls = [(self.topics.release(TaskId(task)), self.topics.round(TaskId(task))) for task in tasks]
        return [*self.topics.every_uplink, *(topic for pair in calls for topic in pair)]

    def take(self, topic: str, payload: bytes, at_s: float) -> None:
        """Take in a message that came `at_s` seconds after the start."""
        if not payload:
            return
        try:
            self._take(topic, payload, at_s)
        except RoadcastError as error:
            reason = getattr(error, "reason", type(error).__name__)
            self.refused[reason] = self.refused.get(reason, 0) + 1

    def _take(self, topic: str, payload: bytes, at_s: float) -> None:
        match self.topics.parse(topic):
            case Uplink(device, kind):
                envelope = codec.decode(payload, kind=_kind(kind), fleet=self._fleet, sender=device)
                if envelope.header.message_id not in self._seen:
                    self._seen.add(envelope.header.message_id)
                    self._uplink(self._device(device), envelope.body, at_s)
            case Presence(device):
                body = codec.decode(payload, kind="online", fleet=self._fleet, sender=device).body
                self._device(device).online = isinstance(body, m.Presence) and body.online
            case ReleaseTopic(task, None):
                self._release(self._task(task), codec.decode(payload, kind="release", fleet=self._fleet).body)
            case RoundTopic(task):
                self._round(self._task(task), codec.decode(payload, kind="round", fleet=self._fleet).body)
            case _:
                return

    def _uplink(self, device: DeviceView, body: m.Body, at_s: float) -> None:
        match body:
            case m.Birth(tasks=(running, *_)):
                device.task, device.tier, device.student = running.task, running.tier, running.student
                device.release = running.release
            case m.DeviceState():
                self._state(device, body, at_s)
            case m.Deployment():
                device.deployment = body.state + (f": {body.reason}" if body.reason else "")
                device.release = body.running
            case m.IntervalResult():
                sums = device.results.setdefault(body.source, {})
                for key, value in body.values.items():
                    sums[key] = sums.get(key, 0) + value
                device.coverage.setdefault(body.source, []).append(body.coverage)
            case _:
                return

    def _state(self, device: DeviceView, body: m.DeviceState, at_s: float) -> None:
        device.session, device.release = body.session, body.release
        device.counts, device.values = body.counts, body.values
        number = self._task(body.task).round
        device.bytes_by_round[number] = (body.counts.get("bytes_up", 0), body.counts.get("bytes_down", 0))
        p50, p95 = (body.values.get(f"latency_{p}_ms") for p in ("p50", "p95"))
        if p50 is not None and p95 is not None:
            device.latency.append((at_s, p50, p95))

    def _release(self, task: TaskView, body: m.Body) -> None:
        assert isinstance(body, m.ReleaseOffer)
        manifest = decode_manifest(body.manifest)
        task.release = max(task.release, manifest.counter)
        task.metrics[manifest.counter] = manifest.metrics

    def _round(self, task: TaskView, body: m.Body) -> None:
        assert isinstance(body, m.RoundCall)
        task.round, task.collecting = body.number, body.open

    def _device(self, name: DeviceId) -> DeviceView:
        return self.devices.setdefault(name, DeviceView(name))

    def _task(self, name: str) -> TaskView:
        return self.tasks.setdefault(name, TaskView())


def bytes_per_round(device: DeviceView) -> dict[int, tuple[int, int]]:
    """Bytes (up, down) within each round; round 0 is everything before the first call."""
    spent: dict[int, tuple[int, int]] = {}
    before = (0, 0)
    for number, total in sorted(device.bytes_by_round.items()):
        spent[number] = (max(total[0] - before[0], 0), max(total[1] - before[1], 0))
        before = total
    return spent


def _kind(kind: str) -> m.Kind:
    return kind  # type: ignore[return-value]  # the parser lets only kinds through
