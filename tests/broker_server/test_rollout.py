"""A release goes over the fleet in waves, and back when it does not prove itself."""

from __future__ import annotations

import msgspec
import pytest

from broker_server.audit import verify
from broker_server.rollout import ASK_AGAIN_S
from broker_server.rollout_fates import FATES, Fate, Sign
from broker_server.rollout_plan import Plan
from broker_server.rollout_states import TABLE, RolloutEvent, RolloutState
from edge_protocol.errors import IllegalTransitionError
from edge_protocol.fsm import permits, step
from tests.broker_server.rollout_scene import PLAN, RolloutScene, weights_of

SOAK, DEADLINE = PLAN.soak_s, PLAN.deadline_s


def started(plan: Plan = PLAN, count: int = 10) -> RolloutScene:
    """A fleet on release 1, and a rollout of release 2 that has just begun."""
    scene = RolloutScene(count)
    scene.draft(2)
    assert scene.order(2, "start", plan) == ""
    return scene


@pytest.mark.parametrize(("table", "start"), [(TABLE, RolloutState.DRAFT), (FATES, Fate.ABSENT)])
def test_every_state_can_be_reached(table: dict, start: object) -> None:  # type: ignore[type-arg]
    """From the first state, rows lead to every state."""
    found = {start}
    while new := {to for (state, _), to in table.items() if state in found} - found:
        found |= new
    assert found == set(type(start))  # type: ignore[call-overload]


@pytest.mark.parametrize("state", RolloutState)
@pytest.mark.parametrize("event", RolloutEvent)
def test_what_has_no_row_is_refused_and_changes_nothing(state: RolloutState, event: RolloutEvent) -> None:
    """Nothing leads out of ABORTED, and whatever began can be aborted."""
    if not permits(TABLE, state, event):
        with pytest.raises(IllegalTransitionError):
            step(TABLE, state, event)
    assert not permits(TABLE, RolloutState.ABORTED, event)
    ends = permits(TABLE, state, RolloutEvent.ABORT) or permits(TABLE, state, RolloutEvent.ROLLBACK)
    assert ends == (state is not RolloutState.ABORTED)


def test_a_failure_stays_one() -> None:
    """No sign leads away from FAILED, and only a commit, of one who is there, to COMMITTED."""
    there = {(Fate.WAITING, Sign.COMMIT), (Fate.MEASURING, Sign.COMMIT)}
    assert not [sign for sign in Sign if permits(FATES, Fate.FAILED, sign)]
    assert {row for row, to in FATES.items() if to is Fate.COMMITTED} == there


def test_a_release_goes_over_the_fleet_wave_by_wave() -> None:
    """Canaries of every tier, then half, then all; each wave watched; then it is the fleet's and single topics go."""
    scene = started()
    assert len(scene.own) == 3
    assert {scene.devices[name].tier for name in scene.own} == {"nano", "small", "base"}
    seen = []
    for _ in range(3):
        scene.act_all()
        scene.wait(1)
        seen.append((scene.state(2), len(scene.running(2)), scene.fleet))
        scene.wait(SOAK - 2)
        assert len(scene.own) == seen[-1][1], "the soak is not over"
        scene.wait(2)
    assert seen == [("canary", 3, 1), ("ramping", 5, 1), ("ramping", 10, 1)]
    assert (scene.state(2), scene.fleet, scene.own) == ("complete", 2, {})
    assert [entry.what for entry in scene.audit] == ["draft", "start", "wave-0", "wave-1", "wave-2", "complete"]
    assert verify(scene.audit)[0] == 6


def test_the_next_wave_waits_for_every_device_of_this_one() -> None:
    """One that has not answered yet holds the rollout; no new round opens meanwhile."""
    scene = started()
    late = scene.devices[next(iter(scene.own))]
    late.temper = "silent"
    scene.act_all()
    scene.wait(SOAK + 1)
    assert (scene.state(2), len(scene.own)) == ("canary", 3)
    assert scene.task.held
    late.temper = "good"
    scene.act(late)
    scene.wait()
    scene.wait(SOAK)
    assert (scene.state(2), len(scene.own)) == ("ramping", 5)


@pytest.mark.parametrize(
    ("temper", "reason"),
    [("fails", "golden answers differ"), ("silent", "silent about it"), ("lies", "other weights"), ("slow", "90.0 ms")],
)
def test_too_many_failures_flip_the_fleet_back(temper: str, reason: str) -> None:
    """Failing, silent, lying and slow devices: aborted, topics cleared, the old files under a counter that all take."""
    scene = started(msgspec.structs.replace(PLAN, max_latency_p95_ms=40))
    for name in list(scene.own)[:2]:
        scene.devices[name].temper = temper
    scene.act_all()
    scene.wait(DEADLINE)
    assert (scene.state(2), scene.own, scene.fleet) == ("aborted", {}, 1)
    assert reason in scene.rollouts[2].reason
    assert [w for w in scene.making if w.counter == 1], "release 1 is asked for again"
    for dev in scene.devices.values():
        dev.temper = "good"
    scene.make()
    scene.act_all()
    assert (scene.fleet, len(scene.running(3))) == (3, 10)
    assert scene.rollout_weights(3) == {tier: weights_of(1, tier) for tier in ("nano", "small", "base")}


def test_a_limit_that_cannot_be_judged_is_not_met() -> None:
    """A wave waits for every device's latency, over a restart too, asks again, and takes silence for a failure."""
    scene = started(msgspec.structs.replace(PLAN, max_latency_p95_ms=40, max_failures=0))
    mute = scene.devices[next(iter(scene.own))]
    mute.temper = "mute"
    scene.act_all()
    scene.wait()
    scene.wait(SOAK)
    assert (scene.state(2), scene.progress[2, mute.name].state, mute.asked) == ("canary", "measuring", 1)
    scene.restart()
    scene.wait(ASK_AGAIN_S)
    scene.wait(ASK_AGAIN_S)
    assert (scene.state(2), mute.asked) == ("canary", 4), "a restart asks too"
    scene.wait(DEADLINE)
    assert scene.state(2) == "aborted"
    assert f"{mute.name} runs it and has not said" in scene.rollouts[2].reason


def test_a_limit_that_all_keep_stops_nothing() -> None:
    """Devices that are asked and answer fast enough take the release through all waves."""
    scene = started(msgspec.structs.replace(PLAN, max_latency_p95_ms=40, max_failures=0))
    for _ in range(3):
        scene.act_all()
        scene.wait()
        scene.wait(1)
        scene.wait(SOAK)
    assert (scene.state(2), len(scene.running(2))) == ("complete", 10)
    assert {dev.asked for dev in scene.devices.values()} == {1}


def test_as_many_failures_as_are_borne_do_not_stop_it() -> None:
    """One failed canary of three, with one borne."""
    scene = started()
    scene.devices[next(iter(scene.own))].temper = "fails"
    for _ in range(3):
        scene.act_all()
        scene.wait(1)
        scene.wait(SOAK)
    assert scene.state(2) == "complete"
    assert len(scene.running(2)) == 9


def test_a_wave_of_failures_alone_is_no_success() -> None:
    """However many are borne, a release that no canary committed goes no further."""
    scene = started(msgspec.structs.replace(PLAN, max_failures=99))
    for dev in scene.devices.values():
        dev.temper = "fails"
    scene.act_all()
    scene.wait(1)
    assert scene.state(2) == "aborted"
    assert "no device committed it" in scene.rollouts[2].reason


def test_devices_that_are_away_hold_nothing_up_and_converge_when_they_are_back() -> None:
    """Nine of thirty were off for a month: canaries are others, no failure is counted, and later they have it too."""
    scene = RolloutScene(30)
    away = [dev for dev in scene.devices.values() if int(dev.name[4:]) < 9]
    for dev in away:
        scene.disconnect(dev)
    scene.draft(2)
    scene.order(2, "start", PLAN)
    assert not set(scene.own) & {dev.name for dev in away}
    for _ in range(3):
        scene.act_all()
        scene.wait(1)
        scene.wait(SOAK)
    assert scene.state(2) == "complete"
    scene.wait(30 * 86_400)
    for dev in away:
        scene.connect(dev)
        scene.act(dev)
    assert len(scene.running(2)) == 30


def test_a_device_that_is_back_late_has_all_its_time() -> None:
    """Its deadline begins when it is there, and its failure then counts."""
    scene = RolloutScene(3)
    for dev in list(scene.devices.values())[1:]:
        scene.disconnect(dev)
    scene.draft(2)
    scene.order(2, "start", msgspec.structs.replace(PLAN, canary=1.0, waves=(1.0,), max_failures=0))
    scene.act_all()
    scene.wait(DEADLINE - 1)
    late = scene.devices["cam-2"]
    late.temper = "silent"
    scene.connect(late)
    scene.wait(DEADLINE - 1)
    assert scene.state(2) in {"canary", "ramping"}
    scene.wait(2)
    assert scene.state(2) == "aborted"


def test_a_device_that_commits_and_goes_silent_while_it_is_watched_has_failed() -> None:
    """What took it down may be the release: it has to come back by the deadline; after its wave it need not."""
    scene = started(msgspec.structs.replace(PLAN, max_failures=0))
    gone = scene.devices[next(iter(scene.own))]
    scene.act_all()
    scene.disconnect(gone)
    scene.wait(DEADLINE - 1)
    assert scene.state(2) == "canary"
    scene.connect(gone)
    scene.wait()
    scene.wait(SOAK)
    scene.disconnect(gone)
    scene.act_all()
    scene.wait(DEADLINE)
    assert scene.state(2) != "aborted"
    watched = scene.devices[next(name for name in scene.own if name != gone.name and scene.rollouts[2].wave)]
    assert scene.progress[2, watched.name].state == "committed"


def test_a_device_that_falls_back_after_its_commit_has_failed() -> None:
    """It says that it runs the old release again."""
    scene = started(msgspec.structs.replace(PLAN, max_failures=0))
    scene.act_all()
    fallen = scene.devices[next(iter(scene.own))]
    fallen.running = 1
    scene.connect(fallen)
    scene.wait()
    assert scene.state(2) == "aborted"
    assert "fell back to release 1" in scene.rollouts[2].reason


def test_paused_nothing_goes_on_and_resumed_it_does() -> None:
    """Failures are noted meanwhile and count once it goes on."""
    scene = started()
    scene.act_all()
    assert scene.order(2, "pause") == ""
    scene.wait(10 * SOAK)
    assert (scene.state(2), len(scene.own)) == ("paused", 3)
    assert "is paused: it takes abort or resume" in (scene.order(2, "pause") or "")
    assert scene.order(2, "resume") == ""
    assert scene.state(2) == "canary"
    scene.wait(SOAK)
    assert scene.state(2) == "ramping"
    scene.order(2, "pause")
    assert scene.order(2, "resume") == ""
    assert scene.state(2) == "ramping"


def test_a_complete_rollout_can_be_rolled_back() -> None:
    """The release before it comes again under a higher counter, for everybody."""
    scene = started(msgspec.structs.replace(PLAN, canary=1.0, waves=(1.0,)))
    for _ in range(2):
        scene.act_all()
        scene.wait(1)
        scene.wait(SOAK)
    assert (scene.state(2), scene.fleet) == ("complete", 2)
    assert scene.order(2, "rollback") == ""
    scene.wait()
    scene.make()
    scene.act_all()
    assert (scene.fleet, len(scene.running(3))) == (3, 10)
    assert scene.rollout_weights(3)["nano"] == weights_of(1, "nano")


def test_a_take_back_that_fails_is_asked_for_again() -> None:
    """Until a higher counter is the fleet's; across a restart of the server too."""
    scene = started()
    scene.act_all()
    scene.order(2, "abort")
    assert len(scene.making) == 1
    scene.making.clear()
    scene.wait(30)
    assert not scene.making
    scene.wait(31)
    assert len(scene.making) == 1
    scene.restart()
    assert len(scene.making) == 1
    scene.make()
    scene.restart()
    scene.wait(1000)
    assert (scene.fleet, scene.making) == (3, [])


def test_an_abort_before_anything_was_offered_leaves_no_trace_on_devices() -> None:
    """Outside its window a rollout waits; ended there, nothing has to be taken back."""
    opens = msgspec.structs.replace(PLAN, window="01:00-02:00")
    scene = RolloutScene(10, now=10 * 86_400 + 7200.0)
    scene.draft(2)
    scene.order(2, "start", opens)
    scene.wait(60)
    assert (scene.state(2), scene.own) == ("canary", {})
    scene.order(2, "abort")
    scene.wait(1000)
    assert (scene.state(2), scene.making, scene.fleet) == ("aborted", [], 1)


def test_a_wave_begins_inside_the_window_only() -> None:
    """The deadline says when to look; a wave that is ready outside waits for the next night."""
    opens = msgspec.structs.replace(PLAN, window="01:00-02:00")
    scene = RolloutScene(10, now=10 * 86_400 + 7200.0)
    scene.draft(2)
    scene.order(2, "start", opens)
    scene.wait(60)
    due = scene.core.next_deadline()
    assert due is not None
    scene.wait(due - scene.now)
    assert (scene.now % 86_400, len(scene.own)) == (3600, 3)
    scene.act_all()
    scene.wait(1)
    scene.wait(3600)
    assert (scene.state(2), len(scene.own)) == ("ramping", 3)
    scene.wait(23 * 3600)
    assert len(scene.own) == 5
