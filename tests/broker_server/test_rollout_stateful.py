"""Whatever devices, operators, time and restarts do, a rollout keeps its promises, and the fleet converges."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker_server.audit import verify
from broker_server.rollout_plan import Plan, size_of
from broker_server.rollout_states import ACTIVE, MOVING, RolloutState
from tests.broker_server.rollout_scene import RolloutScene

DEVICES = 8
PLAN = Plan(canary=0.25, waves=(0.5, 1.0), soak_s=50, deadline_s=300, max_failures=1, max_latency_p95_ms=40)
names = st.sampled_from([f"cam-{i}" for i in range(DEVICES)])


class RolloutMachine(RuleBasedStateMachine):
    """Devices that fail, fall silent, are slow, lie, go and come; orders; time; a server that is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = RolloutScene(DEVICES)
        self.floor = dict.fromkeys(self.scene.devices, 1)
        self.fleet = 1

    @property
    def newest(self) -> int:
        """The newest release."""
        return max(self.scene.releases)

    @rule(starts=st.booleans(), borne=st.integers(0, 3))
    @precondition(lambda self: self.newest < 6)
    def make(self, starts: bool, borne: int) -> None:
        """A release is made that waits for a rollout."""
        self.scene.draft(self.newest + 1, msgspec.structs.replace(PLAN, max_failures=borne), starts=starts)

    @rule()
    @precondition(lambda self: self.newest < 6)
    def push(self) -> None:
        """A release is made that is for everybody at once."""
        self.scene.store(self.newest + 1)

    @rule(order=st.sampled_from(["start", "start", "pause", "resume", "abort", "rollback"]), back=st.integers(0, 2))
    def order(self, order: str, back: int) -> None:
        """An operator orders something, sensible or not."""
        self.scene.order(self.newest - back, order, PLAN if order == "start" else None)

    @rule(name=names, temper=st.sampled_from(["good", "fails", "silent", "slow", "mute", "lies"]))
    def turn(self, name: str, temper: str) -> None:
        """A device changes its temper."""
        self.scene.devices[name].temper = temper

    @rule(name=names)
    def switch(self, name: str) -> None:
        """A device goes, or comes back."""
        dev = self.scene.devices[name]
        (self.scene.disconnect if dev.online else self.scene.connect)(dev)

    @rule()
    def act(self) -> None:
        """Devices do what they are offered, each in its own way, and the wave is watched to its end."""
        self.scene.act_all()
        self.scene.wait(1)
        self.scene.wait(PLAN.soak_s)

    @rule(seconds=st.sampled_from([1.0, 50.0, 300.0, 30 * 86_400.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; what was asked for again is made or not."""
        self.scene.wait(seconds)

    @rule()
    def finish_work(self) -> None:
        """What was asked for again is made."""
        self.scene.make()

    @rule()
    def restart(self) -> None:
        """The server is killed and comes back."""
        self.scene.restart()

    @invariant()
    def nobody_goes_back(self) -> None:
        """Neither a device nor the fleet's topic ever goes to a lower counter."""
        for name, dev in self.scene.devices.items():
            assert dev.running >= self.floor[name]
            self.floor[name] = dev.running
        for name, counter in self.scene.own.items():
            assert counter in self.scene.rollouts, name
        assert self.scene.fleet >= self.fleet or "rollback" in {entry.what for entry in self.scene.audit}
        self.fleet = self.scene.fleet

    @invariant()
    def canaries_come_first(self) -> None:
        """While the canaries are watched, nobody else is offered the release; aborted, nobody is."""
        for counter, record in self.scene.rollouts.items():
            offered = [name for name, offer in self.scene.own.items() if offer == counter]
            if record.state == RolloutState.CANARY.value:
                assert len(offered) <= size_of(record.plan.canary, DEVICES, 3)
            if record.state in {RolloutState.DRAFT.value, RolloutState.ABORTED.value}:
                assert offered == []

    @invariant()
    def one_at_a_time(self) -> None:
        """At most one rollout is under way."""
        assert sum(RolloutState(r.state) in ACTIVE for r in self.scene.rollouts.values()) <= 1

    @invariant()
    def success_is_what_devices_reported(self) -> None:
        """A device counts as committed only when it runs the release and has said that it is fast."""
        for (counter, name), progress in self.scene.progress.items():
            if progress.state == "committed":
                dev = self.scene.devices[name]
                assert dev.running >= counter
                assert counter in dev.fast or self.scene.rollouts[counter].plan.max_latency_p95_ms is None
                assert counter not in dev.lied or dev.temper != "lies"

    @invariant()
    def complete_means_proved(self) -> None:
        """A complete rollout had a commit, and no more failures than are borne."""
        for counter, record in self.scene.rollouts.items():
            fates = [p.state for (c, _), p in self.scene.progress.items() if c == counter]
            if record.state == RolloutState.COMPLETE.value:
                assert "committed" in fates
                assert fates.count("failed") <= record.plan.max_failures

    @invariant()
    def too_many_failures_stop_it(self) -> None:
        """A moving rollout bears no more failures than its plan says, once the server has looked."""
        self.scene.wait()
        for counter, record in self.scene.rollouts.items():
            fates = [p.state for (c, _), p in self.scene.progress.items() if c == counter]
            assert RolloutState(record.state) not in MOVING or fates.count("failed") <= record.plan.max_failures

    @invariant()
    def the_log_holds(self) -> None:
        """The audit chain verifies after every step, restarts included."""
        verify(self.scene.audit)

    def teardown(self) -> None:
        """With everybody there and well, and nothing paused, all end on the fleet's release in bounded steps."""
        scene = self.scene
        for dev in scene.devices.values():
            dev.temper = "good"
            if not dev.online:
                scene.connect(dev)
        for counter, record in list(scene.rollouts.items()):
            if record.state == RolloutState.PAUSED.value:
                scene.order(counter, "resume")
        for _ in range(40):
            scene.act_all()
            scene.make()
            scene.wait(61)
        stuck = {dev.name for dev in scene.devices.values() if dev.running < dev.tried}
        assert {dev.running for dev in scene.devices.values() if dev.name not in stuck} == {scene.fleet}
        assert scene.own == {}
        assert not [r for r in scene.rollouts.values() if RolloutState(r.state) in ACTIVE]


RolloutMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestRollout = RolloutMachine.TestCase
TestRollout.__doc__ = "Random schedules of devices, orders, time and restarts keep every invariant."
