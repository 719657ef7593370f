"""Rollouts through the real server: by policy and by operators, on simulated fleets and on real agents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_server.audit import verify
from broker_server.config import RoundsConfig, ServerConfig
from broker_server.records import OrderRecord
from broker_server.rollout_plan import Plan
from broker_server.rounds import RoundState
from broker_server.server import IDLE_S, Server
from broker_server.setup import push_release
from edge_client.agent import Agent
from edge_models.tasks import load_task
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.topics import ReleaseTopic
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from tests.edge_client.device_rig import NO_TRAINER, device_config
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_artifacts, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, class_votes, in_memory
from tests.fakes.small_centre import Files, artifact_files, spoilt

TASK = TaskId("vehicle")
PLAN = Plan(canary=0.2, waves=(0.5, 1.0), soak_s=30, deadline_s=300, max_failures=1)


def drive(server: Server, fleet: FleetSimulator, clock: FakeClock, until: Callable[[], bool], what: str) -> None:
    """Let server and devices act in turns until something holds."""
    for _ in range(3000):
        busy = server.step() + fleet.step()
        if until():
            return
        if not busy:
            clock.advance(0.5)
    raise AssertionError(f"no {what}; {server.database.rollouts()}")


def order(server: Server, counter: int, what: str, plan: Plan | None = None) -> None:
    """Leave an order, as the command line does."""
    server.database.add_order(
        OrderRecord(task=TASK, counter=counter, order=what, by="ann", at_s=server._seams.clock(), plan=plan)
    )


def own_topics(server: Server, broker: MemoryBroker) -> list[str]:
    """Devices for which the broker keeps a release of their own."""
    found = [server.topics.parse(topic) for topic in broker.retained]
    return sorted(t.device for t in found if isinstance(t, ReleaseTopic) and t.device is not None)


def state(server: Server, counter: int) -> str:
    """State of a rollout, "" when there is none."""
    found = server.database.draft(TASK, counter)
    return found.state if found else ""


@pytest.mark.parametrize("restarts", [False, True])
def test_what_the_judge_accepts_rolls_out_by_policy(tmp_path: Path, restarts: object) -> None:
    """Round 1's release goes to canaries, half, all, without an operator, and its round ends with it; restarted too."""
    truth = write_packs(tmp_path)["proxies"].targets
    clock, broker = FakeClock(), MemoryBroker()
    config = with_policy(centre_config(tmp_path, rounds=RoundsConfig(limit=1, quorum=20, wait_for=20, pause_s=0)))
    distiller = scripted_distiller([0.4, 0.5])
    server = make_server(config, broker, clock, distiller)
    try:
        server.start()
        labels = truth.astype(np.int64)
        fleet = FleetSimulator(
            in_memory(broker), load_task(TASK), clock, 20, knowledge=lambda *_: class_votes(labels, 6)
        )
        fleet.start()
        drive(
            server,
            fleet,
            clock,
            lambda: state(server, 2) == "canary" and len(own_topics(server, broker)) == 4,
            "canaries",
        )
        assert {d.name for d in fleet.devices if d.running == 2} <= set(own_topics(server, broker))
        assert server.database.rounds(TASK)[-1].state == RoundState.JUDGING.value
        if restarts:
            server.transport.cut("killed")  # type: ignore[attr-defined]
            server.database.close()
            server = make_server(config, broker, clock, distiller)
            server.start()
            assert server.database.rounds(TASK)[-1].state == RoundState.JUDGING.value
        drive(server, fleet, clock, lambda: state(server, 2) == "complete", "end of the rollout")
        drive(server, fleet, clock, lambda: own_topics(server, broker) == [], "clearing of the devices' topics")
        assert {d.running for d in fleet.devices} == {2}
        assert server.database.rounds(TASK)[-1].state == RoundState.RELEASED.value
        assert verify(server.database.audit())[0] == 7
        assert {entry.who for entry in server.database.audit()} == {"policy", "server"}
    finally:
        server.close()


def with_policy(config: ServerConfig) -> ServerConfig:
    """The same configuration with a rollout policy."""
    return msgspec.structs.replace(config, tasks={TASK: msgspec.structs.replace(config.tasks[TASK], rollout=PLAN)})


def test_a_release_that_fails_on_the_canaries_reaches_nobody_else(tmp_path: Path) -> None:
    """The canaries fail: taken back under a higher counter; one that was away for all of it gets that one too."""
    write_packs(tmp_path)
    clock, broker = FakeClock(), MemoryBroker()
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    write_artifacts(tmp_path / "a", load_task(TASK), seed=1)
    write_artifacts(tmp_path / "b", load_task(TASK), seed=2)
    push_release(config, TASK, tmp_path / "a", notes="", now=clock())
    server = make_server(config, broker, clock, scripted_distiller([]))
    bad: set[DeviceId] = set()
    fleet = FleetSimulator(
        in_memory(broker),
        load_task(TASK),
        clock,
        20,
        knowledge=lambda *_: None,
        temper=lambda device, counter: "fails" if counter == 2 and device in bad else "good",
    )
    try:
        server.start()
        for device in fleet.devices[1:]:
            device.start()
        drive(server, fleet, clock, lambda: all(d.running == 1 for d in fleet.devices[1:]), "release 1")
        push_release(config, TASK, tmp_path / "b", notes="", now=clock(), held_by="ann")
        drive(server, fleet, clock, lambda: len(server.database.audit()) == 2, "draft")
        clock.advance(60)
        server.step()
        assert {d.running for d in fleet.devices[1:]} == {1}
        bad |= {d.name for d in fleet.devices}
        order(server, 2, "start", PLAN)
        drive(server, fleet, clock, lambda: state(server, 2) == "aborted", "abort")
        assert not [d for d in fleet.devices if d.running == 2]
        drive(server, fleet, clock, lambda: all(d.running == 3 for d in fleet.devices[1:]), "return")
        fleet.devices[0].start()
        drive(server, fleet, clock, lambda: fleet.devices[0].running == 3, "one that was away")
        assert own_topics(server, broker) == []
        first, again = (r for r in server.database.releases(TASK) if r.counter != 2)
        assert weights(first.manifest) == weights(again.manifest)
        assert "golden differs" in server.database.rollouts(TASK)[0].reason
        assert (tmp_path / "server/releases/vehicle/3/nano.safetensors").exists()
        told = [e.what for e in server.database.audit()][-3:]
        assert (told[0], set(told[1:])) == ("abort", {"take-back", "release"})
    finally:
        server.close()


def weights(manifest: bytes) -> set[str]:
    """Hashes of the weights that a stored release names."""
    return {artifact.weights.sha256 for artifact in decode_manifest(manifest).artifacts}


class Street:
    """A real server and two real agents on one broker in memory; the wall clock is told."""

    def __init__(self, folder: Path) -> None:
        write_packs(folder)
        self.folder, self.clock, self.broker = folder, FakeClock(time.time()), MemoryBroker()
        self.config = centre_config(folder, rounds=RoundsConfig(limit=0))
        self.push(artifact_files())
        self.server = make_server(self.config, self.broker, self.clock, scripted_distiller([]))
        self.server.start()
        root = str(self.server.newest_root)
        self.agents = [self._agent(f"cam-{number}", root) for number in (1, 2)]

    def push(self, files: Files, *, held: bool = False) -> None:
        """Push a release of one tier."""
        place = self.folder / "mine" / "nano"
        place.mkdir(parents=True, exist_ok=True)
        for name, data in (("template.onnx", files.template), ("weights.safetensors", files.weights)):
            (place / name).write_bytes(data)
        (place / "golden.safetensors").write_bytes(files.golden)
        by = "ann" if held else ""
        push_release(self.config, TASK, self.folder / "mine", notes="", now=self.clock(), held_by=by)

    def until(self, condition: Callable[[], object], what: str, *, pass_s: float = 0.5) -> None:
        """Turn everybody until something holds."""
        deadline = time.monotonic() + 60
        while not condition():
            self.server.step()
            self.clock.advance(pass_s)
            for agent in self.agents:
                agent.turn()
            assert time.monotonic() < deadline, f"no {what}: {[a.core.stage for a in self.agents]}"

    @property
    def running(self) -> list[int]:
        """What each agent runs."""
        return [agent.core.running.release for agent in self.agents]

    def close(self) -> None:
        """End everybody."""
        for agent in self.agents:
            agent.close()
        self.server.close()

    def _agent(self, name: str, root: str) -> Agent:
        config = device_config(self.folder, device=name, trusted_root=root, state_dir=str(self.folder / name))
        agent = Agent(
            config, lambda inbox, will: MemoryTransport(self.broker, inbox, will), NO_TRAINER, wall=self.clock
        )
        agent.start()
        return agent


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    """Two agents on release 1."""
    made = Street(tmp_path)
    try:
        made.until(lambda: made.running == [1, 1], "release 1")
        yield made
    finally:
        made.close()


def test_real_agents_take_a_release_one_after_the_other(street: Street) -> None:
    """The canary commits first, the other stays on the old release meanwhile; in the end both run the new one."""
    street.push(artifact_files(seed=1), held=True)
    street.until(lambda: state(street.server, 2), "draft")
    order(street.server, 2, "start", Plan(canary=0.5, waves=(1.0,), soak_s=20, deadline_s=100_000))
    street.until(lambda: state(street.server, 2) == "ramping" or sorted(street.running) == [1, 2], "canary")
    assert sorted(street.running) == [1, 2]
    street.until(lambda: state(street.server, 2) == "complete", "end of the rollout")
    street.until(lambda: own_topics(street.server, street.broker) == [], "clearing")
    assert street.running == [2, 2]


def test_real_agents_come_back_from_a_release_that_fails(street: Street) -> None:
    """NaN weights: rolled back on the canary, never offered to the other; both end on the old files as release 3."""
    street.push(spoilt(artifact_files(), weights=float("nan")), held=True)
    street.until(lambda: state(street.server, 2), "draft")
    order(street.server, 2, "start", Plan(canary=0.5, waves=(1.0,), soak_s=20, deadline_s=100_000))
    street.until(lambda: state(street.server, 2) == "aborted", "abort")
    assert street.running == [1, 1]
    street.until(lambda: street.running == [3, 3], "return")
    assert "not a finite number" in street.server.database.rollouts(TASK)[0].reason
    first, _, again = street.server.database.releases(TASK)
    assert weights(first.manifest) == weights(again.manifest)


@pytest.mark.parametrize("how", ["outage", "clock"])
def test_a_rollout_outlives_what_keeps_its_server_from_hearing(street: Street, how: str) -> None:
    """The canary was offered it; no broker, or a clock set forward, for three deadlines: it completes all the same."""
    plan = Plan(canary=0.5, waves=(1.0,), soak_s=20, deadline_s=100_000)
    street.push(artifact_files(seed=1), held=True)
    street.until(lambda: state(street.server, 2), "draft")
    order(street.server, 2, "start", plan)
    street.until(lambda: street.server.database.progress(TASK, 2), "canary")
    if how == "outage":
        links = [street.server.transport, *(agent.transport for agent in street.agents)]
        for link in links:
            link.cut("broker down")  # type: ignore[attr-defined]
        for _ in range(300):
            street.server.step()
            street.clock.advance(plan.deadline_s / 100)
        assert street.server._patience() == IDLE_S
        for link in links:
            link.start()
    else:
        street.clock.set(3 * plan.deadline_s)
    street.until(lambda: state(street.server, 2) in {"complete", "aborted"}, "end of the rollout")
    assert (state(street.server, 2), street.running) == ("complete", [2, 2])
