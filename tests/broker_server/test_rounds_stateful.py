"""Whatever devices, operators, workers, time and restarts do, an open round is called on the fleet's release."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker_server import effects as e
from broker_server.config import RoundsConfig
from broker_server.events import Distilled, JobFailed
from broker_server.records import RolloutRecord
from broker_server.rollout_plan import Plan
from broker_server.rollout_states import ACTIVE, RolloutState
from edge_protocol import messages as m
from tests.broker_server.rollout_scene import RolloutScene, release
from tests.broker_server.scenes import PROXY, SPEC, TASK, result, votes

DEVICES = 4
PLAN = Plan(canary=0.25, waves=(1.0,), soak_s=50, deadline_s=300, max_failures=1)
ROUNDS = RoundsConfig(quorum=2, wait_for=3, deadline_s=100, pause_s=0)
names = st.sampled_from([f"cam-{i}" for i in range(DEVICES)])


class RoundMachine(RuleBasedStateMachine):
    """Devices that answer, fail, go and come; rounds that fail, are refused, or make releases; pushes and rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = RolloutScene(DEVICES, rounds=ROUNDS)

    @property
    def newest(self) -> int:
        """The newest release that was made, the fleet's or not."""
        return max(self.scene.releases)

    @rule(name=names)
    def answer(self, name: str) -> None:
        """A device answers the open round on the release that it runs, which may be an older one."""
        dev, call = self.scene.devices[name], self.scene.call
        if isinstance(call, m.RoundCall) and call.open and dev.online and dev.running <= call.release:
            told = (SPEC.name, SPEC.label_space, call.number, dev.running, PROXY.sha256, 10, votes())
            self.scene.say(dev, m.KnowledgeReport(*told))

    @rule(name=names, back=st.integers(0, 3))
    def answer_late(self, name: str, back: int) -> None:
        """A device answers a round that is over: nobody has answered, or failed to answer, the newest one by that."""
        dev, current = self.scene.devices[name], self.scene.task.round
        if current is None or not dev.online or (current.collecting and not back):
            return
        before = dict(current.answered), dict(current.refused)
        told = (SPEC.name, SPEC.label_space, max(current.number - back, 0), dev.running, PROXY.sha256, 10, votes())
        self.scene.say(dev, m.KnowledgeReport(*told))
        assert before == (current.answered, current.refused)

    @rule()
    def answer_all(self) -> None:
        """Every device answers."""
        for name in self.scene.devices:
            self.answer(name)

    @rule(good=st.booleans(), draft=st.booleans(), killed=st.booleans())
    @precondition(lambda self: self.scene.work)
    def work(self, *, good: bool, draft: bool, killed: bool) -> None:
        """A worker ends, well or not; the server may be killed when a release is on the disk and nobody knows yet."""
        scene, work = self.scene, self.scene.work.pop(0)
        if isinstance(work, e.Distil):
            done = Distilled(TASK, work.round, result(0.5, 0.6 if good else 0.4))
            scene.do(scene.core.learn(done, scene.now))
            return
        if not good:
            scene.do(scene.core.learn(JobFailed(TASK, work.round, "no room"), scene.now))
            return
        counter = self.newest + 1
        scene.releases[counter] = release(counter, number=work.round)
        held = RolloutRecord(task=TASK, counter=counter, plan=PLAN, by="policy", starts=True) if draft else None
        if killed and held is None:
            scene.restart()
        scene.store(counter, held)

    @rule(draft=st.booleans())
    def push(self, *, draft: bool) -> None:
        """An operator pushes a release, for all at once or for a rollout."""
        (self.scene.draft if draft else self.scene.store)(self.newest + 1)

    @rule(order=st.sampled_from(["start", "start", "abort", "rollback"]), back=st.integers(0, 2))
    def order(self, order: str, back: int) -> None:
        """An operator orders something, sensible or not."""
        self.scene.order(self.newest - back, order, PLAN if order == "start" else None)

    @rule(name=names, temper=st.sampled_from(["good", "good", "fails", "silent"]))
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
        """Devices take what they are offered."""
        self.scene.act_all()

    @rule(seconds=st.sampled_from([0.0, 1.0, 50.0, 300.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; what is to be taken back is made again."""
        self.scene.wait(seconds)
        self.scene.make()

    @rule()
    def restart(self) -> None:
        """The server is killed and comes back."""
        self.scene.restart()

    @invariant()
    def an_open_call_names_the_release_of_the_fleet(self) -> None:
        """It is the newest one on the disk that no rollout holds back, and the one on the fleet's topic."""
        call = self.scene.call
        if call is not None and call.open:
            assert call.release == self.scene.serving == self.scene.fleet

    @invariant()
    def no_round_is_open_while_the_fleet_runs_two_releases(self) -> None:
        """A rollout under way has closed what was open, and nothing is called until it ends."""
        under_way = any(RolloutState(r.state) in ACTIVE for r in self.scene.rollouts.values())
        assert not (under_way and self.scene.call is not None and self.scene.call.open)

    @invariant()
    def a_device_waited_for_runs_the_release_of_the_round(self) -> None:
        """Nobody waits for who runs another release: it may answer, and may not."""
        current = self.scene.task.round
        if current is not None and current.collecting:
            assert {self.scene.devices[name].running for name in current.waiting} <= {current.release}


RoundMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40)
TestRounds = RoundMachine.TestCase
TestRounds.__doc__ = "Random schedules of answers, work, pushes, orders, time and restarts keep every invariant."
