"""The rounds of a task: from call to release, given up, superseded, and taken up again after a restart."""

from __future__ import annotations

import msgspec
import pytest

from broker_server import effects as e
from broker_server.config import RoundsConfig
from broker_server.coordinator import SPENT
from broker_server.distil_job import DistilResult, Paired, TrunkSettings
from broker_server.events import Distilled, JobFailed, ReleaseStored
from broker_server.judge import JudgeRules
from broker_server.rounds import RoundState, restored
from broker_server.task_rounds import TaskSetup
from edge_protocol import messages as m
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.ids import TaskId
from tests.broker_server.scenes import PROXY, SPEC, TASK, Scene, drops, of, release, result

LENIENT = JudgeRules(cohort_tolerance=0.12)


def test_without_a_release_the_first_is_distilled_from_anchors() -> None:
    """Round 0 asks no device: it opens, begins, and its candidate becomes release 1."""
    scene = Scene()
    begun = scene.core.tick(scene.now)
    assert of(begun, e.Distil) == [e.Distil(TASK, 0, 0)]
    judged = scene.core.learn(Distilled(TASK, 0, result(None, 0.5)), scene.now)
    assert of(judged, e.MakeRelease)[0].metrics["nano/accuracy"] == 0.5
    done = scene.core.learn(ReleaseStored(release(1)), scene.now)
    assert of(done, e.PublishRelease) == [e.PublishRelease(TASK, 1)]
    assert (scene.round.state, scene.task.release) == (RoundState.RELEASED, 1)


def test_a_round_is_called_once_enough_devices_have_committed() -> None:
    """Two committed devices of three are not enough; the third sets off the call, with its deadline."""
    scene = Scene()
    scene.collecting(2)
    assert scene.round.state is RoundState.OPEN
    scene.birth("cam-2")
    call = of(scene.deployed("cam-2", 1), e.PublishRound)[0].call
    assert (call.number, call.open, call.release, call.deadline_s) == (1, True, 1, scene.now + 60)
    assert call.proxy == PROXY


def test_a_round_closes_when_everybody_has_answered() -> None:
    """The last expected report closes the round at once: saved, no longer open, and handed to the distiller."""
    scene = Scene()
    scene.collecting()
    scene.report("cam-0")
    assert scene.round.collecting
    scene.report("cam-1")
    assert scene.round.collecting
    effects = scene.report("cam-2")
    assert of(effects, e.Distil) == [e.Distil(TASK, 1, 1)]
    assert [call.call.open for call in of(effects, e.PublishRound)] == [False]
    assert set(scene.round.answered) == {"cam-0", "cam-1", "cam-2"}


def test_a_deadline_with_a_quorum_goes_on_and_without_is_abandoned() -> None:
    """At the deadline two reports of a quorum of two suffice, one does not."""
    for reports, state in ((2, RoundState.DISTILLING), (1, RoundState.ABANDONED)):
        scene = Scene()
        scene.collecting()
        for number in range(reports):
            scene.report(f"cam-{number}")
        assert scene.core.next_deadline() == scene.round.deadline_s
        scene.core.tick(scene.now + 59)
        assert scene.round.collecting
        scene.core.tick(scene.now + 60)
        assert scene.round.state is state
    assert "1 of the 2 reports" in scene.round.reason


def test_a_device_that_leaves_is_not_waited_for() -> None:
    """The last will of the only device that has not answered closes the round."""
    scene = Scene()
    scene.collecting()
    scene.report("cam-0")
    scene.report("cam-1")
    effects = scene.say("cam-2", m.Presence(False))
    assert of(effects, e.Distil)
    assert of(effects, e.SaveDevice)[0].record.state == "offline"


def test_a_candidate_that_is_no_better_is_not_released() -> None:
    """The judge's no abandons the round with its reason, and the next one follows after the pause."""
    scene = Scene()
    scene.collecting()
    for number in range(3):
        scene.report(f"cam-{number}")
    effects = scene.core.learn(Distilled(TASK, 1, result(0.6, 0.6)), scene.now)
    assert not of(effects, e.MakeRelease)
    assert (scene.round.state, scene.task.release) == (RoundState.ABANDONED, 1)
    assert "0.6" in scene.round.reason
    assert scene.core.next_deadline() == scene.now + 5
    assert of(scene.core.tick(scene.now + 5), e.PublishRound)[0].call.number == 2


@pytest.mark.parametrize("distilling", [False, True])
def test_a_rollout_that_begins_ends_the_round_that_was_asked_before(distilling: bool) -> None:
    """Its release would overtake the rollout; no round is called meanwhile, and the next one comes afterwards."""
    scene = Scene()
    scene.collecting()
    for number in range(3 if distilling else 1):
        scene.report(f"cam-{number}")
    effects = scene.task.hold(2, scene.now)
    assert (scene.round.state, scene.round.reason) == (RoundState.ABANDONED, "a rollout of release 2 began meanwhile")
    assert bool(of(effects, e.CancelDistil)) is distilling
    assert not of(effects, e.PublishRound)[0].call.open
    assert scene.task.hold(2, scene.now) == []
    assert scene.task.advance(scene.now + 50) == []
    scene.task.held = False
    assert of(scene.task.advance(scene.now + 100), e.PublishRound)[0].call.number == 2


def test_a_device_with_nothing_left_to_say_does_not_keep_others_from_a_round() -> None:
    """It counts towards those that a round waits for, and is not waited for; with nobody else there is no round."""
    scene = Scene(rounds=RoundsConfig(quorum=1, wait_for=3, deadline_s=60, pause_s=5))
    scene.collecting(2)
    assert scene.round.state is RoundState.OPEN
    scene.birth("cam-2", 1)
    scene.say("cam-2", m.DeviceState(TASK, SPENT, 1, {}, {}))
    assert scene.task.silent == {"cam-2"}
    assert scene.round.collecting
    assert scene.round.waiting == {"cam-0", "cam-1"}
    alone = Scene(rounds=RoundsConfig(quorum=1, wait_for=1, deadline_s=60, pause_s=5))
    alone.first_release()
    alone.birth("cam-0")
    alone.say("cam-0", m.DeviceState(TASK, SPENT, 1, {}, {}))
    alone.deployed("cam-0", 1)
    alone.core.tick(alone.now + 10)
    assert alone.round.state is RoundState.OPEN


@pytest.mark.parametrize("state", ["rolled-back", "rejected"])
def test_a_device_that_sent_a_release_back_does_not_keep_others_from_a_round(state: str) -> None:
    """It counts towards those that a round waits for and is not waited for; what it says from the old one counts."""
    scene = Scene()
    scene.collecting()
    scene.core.learn(ReleaseStored(release(2, None)), scene.now)
    scene.now += 5
    scene.deployed("cam-0", 2)
    scene.deployed("cam-1", 2)
    assert scene.round.state is RoundState.OPEN
    (called,) = of(scene.say("cam-2", m.Deployment(SPEC.name, 2, state, 1, "")), e.PublishRound)
    assert (called.call.release, scene.round.waiting) == (2, {"cam-0", "cam-1"})
    scene.report("cam-2")
    assert "cam-2" in scene.round.answered
    scene.deployed("cam-2", 2)
    assert (scene.task.silent, scene.task.ready) == (set(), {"cam-0", "cam-1", "cam-2"})


def test_rounds_end_at_the_limit() -> None:
    """After the last round nothing opens and no deadline of the task is left."""
    scene = Scene(rounds=RoundsConfig(limit=1, quorum=1, wait_for=1, deadline_s=60, pause_s=0))
    scene.collecting(1)
    scene.report("cam-0")
    scene.core.learn(JobFailed(TASK, 1, "no memory"), scene.now)
    assert (scene.round.state, scene.round.reason) == (RoundState.ABANDONED, "no memory")
    assert scene.core.tick(scene.now + 50) == []
    assert scene.task.next_deadline() is None


def test_a_first_release_that_fails_is_tried_again_later() -> None:
    """A failed round 0 rests at least half a minute, then begins anew."""
    scene = Scene()
    scene.core.tick(scene.now)
    scene.core.learn(JobFailed(TASK, 0, "anchors are gone"), scene.now)
    assert scene.core.tick(scene.now + 29) == []
    assert of(scene.core.tick(scene.now + 30), e.Distil) == [e.Distil(TASK, 0, 0)]


@pytest.mark.parametrize("state", ["collecting", "distilling", "open"])
def test_a_release_that_an_operator_pushes_ends_the_round_that_knows_only_the_old_one(state: str) -> None:
    """Reports from the old release are not distilled into the new one; an uncalled round just starts from it."""
    scene = Scene()
    scene.collecting(2 if state == "open" else 3)
    if state == "distilling":
        for number in range(3):
            scene.report(f"cam-{number}")
    effects = scene.core.learn(ReleaseStored(release(2, None)), scene.now)
    assert of(effects, e.PublishRelease) == [e.PublishRelease(TASK, 2)]
    assert bool(of(effects, e.CancelDistil)) is (state == "distilling")
    assert scene.round.state is (RoundState.OPEN if state == "open" else RoundState.ABANDONED)
    assert scene.round.release == (2 if state == "open" else 1)
    assert scene.task.ready == set()


def test_a_push_while_a_release_is_being_made_does_not_stop_it() -> None:
    """The round's own release follows the pushed one, with the next counter."""
    scene = Scene()
    scene.collecting()
    for number in range(3):
        scene.report(f"cam-{number}")
    scene.core.learn(Distilled(TASK, 1, result(0.5, 0.6)), scene.now)
    scene.core.learn(ReleaseStored(release(2, None)), scene.now)
    assert scene.round.state is RoundState.JUDGING
    scene.core.learn(ReleaseStored(release(3, 1)), scene.now)
    assert (scene.round.state, scene.task.release) == (RoundState.RELEASED, 3)


def test_outcomes_that_nobody_waits_for_change_nothing() -> None:
    """A result of an earlier round, an old release, and a release of another task are ignored."""
    scene = Scene()
    scene.collecting()
    assert scene.core.learn(Distilled(TASK, 0, result(None, 0.9)), scene.now) == []
    assert scene.core.learn(JobFailed(TASK, 0, "late"), scene.now) == []
    assert scene.core.learn(ReleaseStored(release(1)), scene.now) == []
    other = ReleaseStored(msgspec.structs.replace(release(1), task=TaskId("speed")))
    assert drops(scene.core.learn(other, scene.now)) == ["unknown-task"]
    assert scene.round.collecting


@pytest.mark.parametrize("state", list(RoundState))
def test_after_a_restart_each_state_goes_on(state: RoundState) -> None:
    """A restored round waits, distils again, or is known to be over, and its call is told again."""
    scene = Scene()
    scene.collecting()
    scene.report("cam-0")
    record = scene.round.record(SPEC)
    changed = type(record)(**{f: getattr(record, f) for f in record.__struct_fields__} | {"state": state.value})
    devices = [device.record() for device in scene.core.registry.devices.values()]
    again, later = Scene(), scene.now + 100
    effects = again.task.resume(release(1), restored(changed, dict(scene.round.answered), 2), later)
    effects += again.core.restore(devices, [], later)
    redone = state in {RoundState.DISTILLING, RoundState.JUDGING}
    assert bool(of(effects, e.Distil)) is redone
    assert of(effects, e.PublishRelease) == [e.PublishRelease(TASK, 1)]
    if state is RoundState.COLLECTING:
        assert again.round.deadline_s == later + 30
        assert again.round.waiting == {"cam-1", "cam-2"}
        assert of(effects, e.PublishRound)[0].call.open
    if state in {RoundState.OPEN, RoundState.RELEASED, RoundState.ABANDONED}:
        assert again.round.state is RoundState.COLLECTING
        assert again.round.number == (1 if state is RoundState.OPEN else 2)


def test_a_release_found_after_a_restart_ends_its_round() -> None:
    """Killed between the making of a release and its announcement, the server finds it and calls the round released."""
    scene = Scene()
    scene.collecting()
    for number in range(3):
        scene.report(f"cam-{number}")
    scene.core.learn(Distilled(TASK, 1, result(0.5, 0.6)), scene.now)
    again = Scene()
    effects = again.task.resume(release(2, 1), restored(scene.round.record(SPEC), {}, 2), scene.now)
    assert (again.round.state, again.task.release) == (RoundState.RELEASED, 2)
    assert not of(effects, e.Distil)


def test_a_round_asks_for_trunks_where_the_task_says_so() -> None:
    """The call tells devices how to train; by default it asks for nothing."""
    for trunk in (None, TrunkSettings(steps=9)):
        scene = Scene(rounds=RoundsConfig(limit=1, quorum=1, wait_for=3, deadline_s=60, pause_s=5, trunk=trunk))
        scene.collecting()
        (told,) = of(scene.task.resume(release(1), scene.round, scene.now), e.PublishRound)
        assert told.call.trunk == (trunk.ask if trunk else None)


def restarted(state: RoundState, proxy: BlobRef | None, *, rolling: bool = False) -> tuple[Scene, list[e.Effect]]:
    """A scene that resumes round 1, which was in a state and asked about `PROXY`, with what is asked now."""
    scene = Scene()
    scene.collecting()
    record = msgspec.structs.replace(scene.round.record(SPEC), state=state.value)
    again = Scene(now=scene.now + 1)
    again.task.setup = TaskSetup(SPEC, proxy, 9, again.rounds)
    return again, again.task.resume(release(1), restored(record, {}, 2), again.now, rolling=rolling)


@pytest.mark.parametrize("proxy", [cut(b"other")[0], None])
def test_an_open_round_asks_what_the_server_asks_after_a_restart(proxy: BlobRef | None) -> None:
    """It was not called yet: another pack, or a strategy that asks for class means, is what its call names."""
    again, _ = restarted(RoundState.OPEN, proxy)
    for number in range(3):
        again.birth(f"cam-{number}", 1)
    call = again.round.call(SPEC)
    assert (again.round.number, again.round.collecting, again.round.samples) == (1, True, 9)
    assert (
        isinstance(call, m.PrototypeCall) if proxy is None else (isinstance(call, m.RoundCall) and call.proxy == proxy)
    )


@pytest.mark.parametrize("state", [RoundState.COLLECTING, RoundState.DISTILLING, RoundState.JUDGING])
@pytest.mark.parametrize("proxy", [cut(b"other")[0], None])
def test_what_was_asked_about_other_proxies_is_given_up_after_a_restart(
    state: RoundState, proxy: BlobRef | None
) -> None:
    """Nothing is distilled from it, devices are told that it is over, and the next round asks about what is there."""
    again, effects = restarted(state, proxy)
    assert (again.round.state, "another proxy set" in again.round.reason) == (RoundState.ABANDONED, True)
    assert not of(effects, e.Distil)
    assert [(told.call.number, told.call.open) for told in of(effects, e.PublishRound)] == [(1, False)]
    assert of(effects, e.SaveRound)[-1].record.state == "abandoned"
    again.now += again.rounds.pause_s
    again.core.tick(again.now)
    assert (again.round.number, again.round.proxy) == (2, proxy)


def test_a_release_on_its_way_outlives_another_proxy_set() -> None:
    """What was asked before it was made is answered: the rollout goes on."""
    again, _ = restarted(RoundState.JUDGING, cut(b"other")[0], rolling=True)
    assert again.round.state is RoundState.JUDGING


def scored(bus: float, before: float) -> DistilResult:
    """A candidate that is better on the whole, and its ``class/bus``."""
    pair = Paired(samples=100, current=before, candidate=bus, loss=before - bus, doubt=0.01, spread=0.01)
    return msgspec.structs.replace(result(0.5, 0.6), cohorts={"nano": {"class/bus": pair}}, validation="pack")


def judged(scene: Scene, told: DistilResult) -> RoundState:
    """Run the open round up to its verdict."""
    for number in range(3):
        scene.report(f"cam-{number}", release=scene.task.release)
    scene.core.learn(Distilled(TASK, scene.round.number, told), scene.now)
    return scene.round.state


def next_round(scene: Scene, counter: int) -> None:
    """Have every device run a release, and the next round called."""
    for number in range(3):
        scene.deployed(f"cam-{number}", counter)
    scene.now += 5
    scene.core.tick(scene.now)
    assert scene.round.collecting


def test_the_best_accepted_score_goes_from_round_to_round() -> None:
    """A cohort that lost a tenth twice is refused the second time, also by a server that was restarted in between."""
    scene = Scene(rounds=RoundsConfig(quorum=2, wait_for=3, deadline_s=60, pause_s=5), judge=LENIENT)
    scene.collecting()
    assert judged(scene, scored(0.72, 0.8)) is RoundState.JUDGING
    assert scene.round.floor is not None
    assert not scene.round.floor.best
    effects = scene.core.learn(ReleaseStored(release(2, 1)), scene.now)
    (saved,) = [each.record for each in of(effects, e.SaveRound) if each.record.state == "released"]
    assert saved.floor is not None
    assert (saved.floor.release, saved.raised) == (2, None)
    assert saved.floor.best["nano"]["class/bus"].score == 0.8
    scene.task.round = restored(saved, {}, 2)
    next_round(scene, 2)
    assert judged(scene, scored(0.65, 0.72)) is RoundState.ABANDONED
    assert "nano: cohort class/bus 0.8 → 0.65" in scene.round.reason
    next_round(scene, 2)
    assert judged(scene, scored(0.75, 0.72)) is RoundState.JUDGING


def test_only_the_newest_round_has_the_floor() -> None:
    """The round before is written down again without it, in the batch that opens the next."""
    scene = Scene(rounds=RoundsConfig(quorum=2, wait_for=3, deadline_s=60, pause_s=5), judge=LENIENT)
    scene.collecting()
    judged(scene, scored(0.9, 0.8))
    scene.core.learn(ReleaseStored(release(2, 1)), scene.now)
    scene.now += 5
    saves = [
        (each.record.number, each.record.floor is not None) for each in of(scene.core.tick(scene.now), e.SaveRound)
    ]
    assert saves[:2] == [(1, False), (2, True)]


def test_a_release_that_was_not_accepted_raises_nothing() -> None:
    """Neither a candidate whose release failed nor one that the judge refused is a best; a pushed one begins anew."""
    scene = Scene(rounds=RoundsConfig(quorum=2, wait_for=3, deadline_s=60, pause_s=5), judge=LENIENT)
    scene.collecting()
    judged(scene, scored(0.95, 0.8))
    scene.core.learn(JobFailed(TASK, 1, "no room"), scene.now)
    next_round(scene, 1)
    assert scene.round.floor is not None
    assert not scene.round.floor.best
    assert judged(scene, scored(0.78, 0.8)) is RoundState.JUDGING
    scene.core.learn(ReleaseStored(release(2, 2)), scene.now)
    scene.core.learn(ReleaseStored(release(3, None)), scene.now)
    next_round(scene, 3)
    assert judged(scene, scored(0.5, 0.5)) is RoundState.JUDGING
