"""The course of a demo: processes up, rounds, processes down, evaluation, verdict. Owns the order, no part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Protocol

import msgspec

from edge_models.tasks import load_task, plugin_of
from edge_protocol.config import ENV_PREFIX
from edge_protocol.task import TaskSpec
from edge_protocol.transport.settings import BrokerSettings
from roadcast.demo import fleet
from roadcast.demo.configs import Pace, Places, write_configs
from roadcast.demo.fleet import FLEET
from roadcast.demo.live import Display
from roadcast.demo.observer import Observer
from roadcast.demo.outcome import (
    DeviceScore,
    Outcome,
    ReleaseScore,
    TaskFacts,
    clip_facts,
    device_facts,
    reasons_against,
)
from roadcast.demo.partition import RawData, Shares, Sizes, partition
from roadcast.demo.records import Records, keep_heads
from roadcast.demo.supervisor import Supervisor
from roadcast.demo.watch import Watch

READY_S = 60.0
_TICK_S = 0.5
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NO_COLOR": "1"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        rounds: rounds of each task after its first release.
        work: folder of everything that comes into being.
        limit_s: after this long the rounds are given up.
        settle_s: after the last round, how long devices may take to commit the last release.
    """

    rounds: int
    work: Path
    data: RawData
    seed: int
    sizes: Sizes = field(default_factory=Sizes)
    pace: Pace = field(default_factory=Pace)
    limit_s: float = 600.0
    settle_s: float = 60.0


@dataclass(frozen=True)
class Ran:
    """What the fleet did."""

    observer: Observer
    tasks: list[TaskFacts]
    late: list[str]


def conduct(plan: Plan, display: Display, parts: Mapping[str, str | None]) -> Outcome:
    """Run the demo.

    Raises:
        DataError: the data cannot be used.
        ChildDiedError: a process of the fleet ended by itself.
        NotReadyError: no broker, or a process that does not begin.
    """
    started = monotonic()
    places = Places(plan.work)
    display.say(f"data: {plan.data.origin}; dealing it out to eight devices")
    shares = partition(plan.data, plan.work / "data", plan.sizes, seed=plan.seed)
    with Supervisor(plan.work / "logs", environment=_environment()) as children:
        display.say("starting a broker, the server and eight devices")
        port = _broker(children, plan.work)
        write_configs(places, shares, plan.pace, port=port, rounds=plan.rounds)
        ran = _rounds(plan, places, children, port, display)
    seconds = monotonic() - started
    display.say("measuring every release and every device on held-out data")
    with Records(places.server_state) as records:
        releases, devices = _evaluate(places, shares, records)
    facts = [device_facts(view) for _, view in sorted(ran.observer.devices.items())]
    members = {member.name: member.task for member in FLEET}
    return Outcome(
        data=plan.data.origin,
        rounds=plan.rounds,
        seconds=seconds,
        evaluation_s=monotonic() - started - seconds,
        tasks=ran.tasks,
        releases=releases,
        devices=devices,
        fleet=facts,
        clip=clip_facts(ran.observer, plan.data.clip_truth),
        reasons=ran.late + reasons_against(ran.tasks, releases, facts, members),
        parts=dict(parts),
    )


def _broker(children: Supervisor, work: Path) -> int:
    children.start("broker", "broker", "run", "--port", "0", "--state-dir", str(work / "broker"), "--json")
    said = msgspec.json.decode(children.wait_for("broker", "}", READY_S), type=dict[str, int | str | None])
    return int(said["port"] or 0)


def _rounds(plan: Plan, places: Places, children: Supervisor, port: int, display: Display) -> Ran:
    children.start("server", "server", "run", "--config", str(places.server_config), "--json")
    children.wait_for("server", "}", READY_S)
    observer = Observer(fleet.NAME)
    with (
        Watch(BrokerSettings(port=port), observer, list(fleet.TASKS)) as watch,
        Records(places.server_state) as records,
    ):
        for member in FLEET:
            children.start(member.name, "client", "run", "--config", str(places.device_config(member.name)))
        display.say("the first releases are being made from the server's own labelled data")
        ending = Ending(plan.rounds, limit_s=plan.limit_s, settle_s=plan.settle_s)
        while (late := ending.reached(observer, records, at_s := monotonic() - watch.started)) is None:
            watch.poll(_TICK_S)
            children.check()
            keep_heads(places, FLEET)
            _plug_in(plan, places, observer)
            display.show(observer, at_s)
        tasks = [_task_facts(load_task(task), records) for task in fleet.TASKS]
    return Ran(observer, tasks, late)


class Progress(Protocol):
    """What `Ending` asks of the server's records."""

    def newest(self) -> dict[str, int]:
        """Counter of the newest release of each task."""
        ...

    def over(self, tasks: Iterable[str], limit: int) -> bool:
        """Whether the last round of every task is over."""
        ...


class Ending:
    """Decides when the rounds are over; time is an argument.

    Args:
        rounds: of each task.
        limit_s: after this long they are given up.
        settle_s: how long devices may take to commit the last release.
    """

    def __init__(self, rounds: int, *, limit_s: float, settle_s: float) -> None:
        self._rounds, self._limit_s, self._settle_s = rounds, limit_s, settle_s
        self._over_s: float | None = None

    def reached(self, observer: Observer, records: Progress, at_s: float) -> list[str] | None:
        """None to go on; else what came too late: nothing, when every device runs the last release."""
        if self._over_s is None:
            if records.over(fleet.TASKS, self._rounds):
                self._over_s = at_s
            return [f"the rounds were not over after {self._limit_s:g} s"] if at_s > self._limit_s else None
        newest = records.newest()
        settled = all(m.name in observer.devices and _settled(m, observer, newest) for m in FLEET)
        return [] if settled or at_s - self._over_s > self._settle_s else None


def _settled(member: fleet.Member, observer: Observer, newest: Mapping[str, int]) -> bool:
    return observer.devices[member.name].release == newest.get(member.task, 0) > 0


def _plug_in(plan: Plan, places: Places, observer: Observer) -> None:
    """Give the camera its clip once it has a model: a clip is over soon, a road is not."""
    for member in FLEET:
        view = observer.devices.get(member.name)
        if member.plays_clip and view is not None and view.release and not places.clip.exists():
            places.clip.symlink_to(plan.data.clip)


def _task_facts(spec: TaskSpec, records: Records) -> TaskFacts:
    plugin = plugin_of(spec)
    return TaskFacts(
        task=spec.name,
        title=spec.title,
        headline=plugin.headline,
        unit=spec.unit,
        higher_is_better=plugin.higher_is_better,
        rounds=records.outcomes(spec.name),
    )


def _evaluate(places: Places, shares: Shares, records: Records) -> tuple[list[ReleaseScore], list[DeviceScore]]:
    from roadcast.demo.evaluate import Judged, held_out

    keep_heads(places, FLEET)
    releases: list[ReleaseScore] = []
    devices: list[DeviceScore] = []
    for task in fleet.TASKS:
        manifests = records.manifests(task)
        if not manifests:
            continue
        judged = Judged(manifests, places.server_state / "blobs")
        held = held_out(judged.spec, shares.server(task, "test"), shares.server(task, "past"))
        releases += judged.releases(held)
        devices += [judged.device(m, shares, places.heads / m.name) for m in FLEET if m.task == task]
    return releases, devices


def _environment() -> dict[str, str]:
    """This process's environment without settings that would reach into every child's configuration."""
    return {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)} | _ONE_THREAD


def remove(work: Path) -> None:
    """Remove a work folder."""
    shutil.rmtree(work, ignore_errors=True)
