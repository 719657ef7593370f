"""What came of a demo, as plain values: the content of ``--json``, the summary and the report. Owns the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from roadcast.demo.fleet import CLIP_SOURCE
from roadcast.demo.observer import DeviceView, Observer, bytes_per_round

Scores = dict[str, float]


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One task.

    Attributes:
        headline: name of the score that decides; `unit` is "" for a share.
        rounds: what came of each round, by the server's record: ``released`` or ``abandoned: why``.
    """

    task: str
    title: str
    headline: str
    unit: str
    higher_is_better: bool
    rounds: list[str]


class ReleaseScore(msgspec.Struct, frozen=True, kw_only=True):
    """A release's student of one tier on data that nobody has seen; `scores` begins with the headline."""

    task: str
    release: int
    tier: str
    student: str
    scores: Scores


class DeviceScore(msgspec.Struct, frozen=True, kw_only=True):
    """A device on its own held-out share: at its first release and at its last, with the shared and its own head.

    Attributes:
        conditions: what its camera sees, or its sensors.
        first, last: counters of the releases.
        before_shared, before_own, after_shared, after_own: the headline; own is None where no head was kept.
    """

    device: str
    task: str
    tier: str
    conditions: str
    first: int
    last: int
    before_shared: float
    before_own: float | None
    after_shared: float
    after_own: float | None


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A device, as it told over MQTT.

    Attributes:
        bytes_by_round: (up, down) within each round, from 0.
        bytes_by_kind: up, by kind of message.
        raw_bytes: bytes of raw samples that the device found in what it was about to send, and withheld.
        latency: (s since the start, p50 ms, p95 ms).
    """

    device: str
    task: str
    tier: str
    student: str
    release: int
    deployment: str
    frames: int
    swap_skipped: int
    queue_dropped: int
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    bytes_up: int
    bytes_down: int
    bytes_by_round: dict[int, tuple[int, int]]
    bytes_by_kind: dict[str, int]
    raw_bytes: int | None
    latency: list[tuple[float, float, float]]


class ClipFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the camera that plays the clip counted.

    Attributes:
        counts: ``line/direction/class`` → vehicles. The classes are the model's: it learnt from pictures of other
            views.
        coverage: share of the clip that it saw.
        truth: how many vehicles the clip shows, for people; "" when nobody knows.
    """

    device: str
    counts: dict[str, float]
    coverage: float
    truth: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The whole demo.

    Attributes:
        data: where the data came from.
        reasons: why it failed; empty when all went well.
        parts: versions of what took part.
    """

    data: str
    rounds: int
    seconds: float
    evaluation_s: float
    tasks: list[TaskFacts]
    releases: list[ReleaseScore]
    devices: list[DeviceScore]
    fleet: list[DeviceFacts]
    clip: ClipFacts | None
    reasons: list[str]
    parts: dict[str, str | None]

    @property
    def ok(self) -> bool:
        """Whether the loop learnt and every device has it."""
        return not self.reasons


def device_facts(view: DeviceView) -> DeviceFacts:
    """Take from a view what is worth keeping."""
    return DeviceFacts(
        device=view.name,
        task=view.task,
        tier=view.tier,
        student=view.student,
        release=view.release,
        deployment=view.deployment,
        frames=view.counts.get("frames", 0),
        swap_skipped=view.counts.get("swap_skipped", 0),
        queue_dropped=view.counts.get("queue_dropped", 0),
        latency_p50_ms=view.values.get("latency_p50_ms"),
        latency_p95_ms=view.values.get("latency_p95_ms"),
        bytes_up=view.counts.get("bytes_up", 0),
        bytes_down=view.counts.get("bytes_down", 0),
        bytes_by_round=bytes_per_round(view),
        bytes_by_kind={name[6:]: count for name, count in sorted(view.counts.items()) if name.startswith("bytes:")},
        raw_bytes=view.counts.get("raw_bytes"),
        latency=view.latency,
    )


def clip_facts(observer: Observer, truth: str) -> ClipFacts | None:
    """What was counted on the clip; None when no camera told anything of it."""
    for view in observer.devices.values():
        if CLIP_SOURCE in view.results:
            seen = view.coverage[CLIP_SOURCE]
            return ClipFacts(
                device=view.name, counts=view.results[CLIP_SOURCE], coverage=sum(seen) / len(seen), truth=truth
            )
    return None


def mean_by_release(scores: Sequence[ReleaseScore], task: TaskFacts) -> dict[int, float]:
    """The headline of each release, averaged over its tiers."""
    found: dict[int, list[float]] = {}
    for score in scores:
        if score.task == task.task:
            found.setdefault(score.release, []).append(score.scores[task.headline])
    return {release: sum(values) / len(values) for release, values in sorted(found.items())}


def reasons_against(
    tasks: Sequence[TaskFacts],
    scores: Sequence[ReleaseScore],
    fleet: Sequence[DeviceFacts],
    members: Mapping[str, str],
) -> list[str]:
    """Say what is wrong; empty when every task's last release beats its first on held-out data and all devices run it.

    Args:
        tasks: every task of the demo.
        scores: every release on held-out data.
        fleet: every device that was heard.
        members: device → task, every device that should have been.
    """
    against: list[str] = []
    for task in tasks:
        means = mean_by_release(scores, task)
        if not means:
            against.append(f"{task.task}: no release was made")
            continue
        first, last = min(means), max(means)
        if last == first:
            against.append(f"{task.task}: no release followed the first ({'; '.join(task.rounds)})")
        elif (means[last] > means[first]) is not task.higher_is_better or means[last] == means[first]:
            against.append(
                f"{task.task}: release {last} has {task.headline} {means[last]:.3f} on held-out data, "
                f"release {first} had {means[first]:.3f}"
            )
        against += _behind(task.task, last, fleet, members)
    return against


def _behind(task: str, last: int, fleet: Sequence[DeviceFacts], members: Mapping[str, str]) -> list[str]:
    heard = {facts.device: facts for facts in fleet}
    found: list[str] = []
    for name in (name for name, its in members.items() if its == task):
        facts = heard.get(name)
        if facts is None:
            found.append(f"{name}: was never heard of")
            continue
        if facts.release != last:
            state = facts.deployment or "nothing said of it"
            found.append(f"{name}: runs release {facts.release}, not {last} ({state})")
        if facts.swap_skipped:
            found.append(f"{name}: skipped {facts.swap_skipped} frames while it swapped releases")
        if facts.raw_bytes:
            found.append(f"{name}: had {facts.raw_bytes} bytes of raw samples in what it was about to send; withheld")
    return found
