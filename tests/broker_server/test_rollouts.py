"""Several rollouts: whose they are, which goes first, what overtakes them, and who is told no."""

from __future__ import annotations

import msgspec

from broker_server.audit import verify
from broker_server.effects import NO_ROUND
from broker_server.events import JobFailed
from broker_server.records import RolloutRecord
from broker_server.rollouts import RETURN_AGAIN_S
from tests.broker_server.rollout_scene import PLAN, RolloutScene, release
from tests.broker_server.scenes import TASK
from tests.broker_server.test_rollout import SOAK, started

AGAIN = "to release its files, or older ones, again: roadcast release again vehicle NUMBER"


def test_a_rollout_for_some_devices_stays_theirs() -> None:
    """Complete, it keeps their topics, takes newcomers in, and the rest of the fleet stays where it is."""
    scene = started(msgspec.structs.replace(PLAN, to="tag=north", canary=1.0, waves=(1.0,)), count=12)
    for _ in range(2):
        scene.act_all()
        scene.wait(1)
        scene.wait(SOAK)
    assert (scene.state(2), scene.fleet) == ("complete", 1)
    assert sorted(scene.running(2)) == ["cam-1", "cam-10", "cam-11"]
    scene.devices["cam-12"] = type(scene.devices["cam-1"])("cam-12", "nano")
    scene.connect(scene.devices["cam-12"])
    assert scene.own["cam-12"] == 2
    scene.restart()
    assert sorted(scene.own) == ["cam-1", "cam-10", "cam-11", "cam-12"]


def test_what_the_judge_made_rolls_out_by_itself_one_after_the_other() -> None:
    """A draft that starts by itself waits for its turn; the newest of several is the one that goes."""
    scene = RolloutScene(10)
    scene.draft(2, starts=True)
    assert scene.state(2) == "canary"
    scene.draft(3, starts=True)
    scene.draft(4, starts=True)
    assert [scene.state(c) for c in (2, 3, 4)] == ["canary", "aborted", "draft"]
    scene.order(2, "abort")
    scene.wait()
    assert scene.state(4) == "canary"


def test_a_release_for_everybody_overtakes_a_rollout() -> None:
    """Pushed without a hold, it ends the rollout and nothing has to be taken back."""
    scene = started()
    scene.act_all()
    scene.store(3)
    scene.wait(100)
    assert (scene.state(2), scene.fleet, scene.own, scene.making) == ("aborted", 3, {}, [])
    assert "a newer release took its place" in scene.rollouts[2].reason
    scene.draft(4)
    assert [entry.what for entry in scene.audit][-2:] == ["abort", "draft"]
    assert verify(scene.audit)[0] == len(scene.audit)


def test_orders_that_make_no_sense_are_refused_with_the_reason() -> None:
    """A release without a rollout, a second one at once, and what the state does not take."""
    scene = started()
    assert "no release 9 of 'vehicle' waits" in (scene.order(9, "pause") or "")
    assert "is canary: it takes abort or pause" in (scene.order(2, "rollback") or "")
    scene.draft(3)
    assert "abort it first" in (scene.order(3, "start", PLAN) or "")
    assert "is no order" in (scene.order(2, "finish") or "")


def test_a_draft_made_while_no_server_ran_is_logged_once() -> None:
    """Who made it stands in the log, after however many restarts."""
    scene = RolloutScene()
    scene.releases[2] = release(2)
    scene.rollouts[2] = RolloutRecord(task=TASK, counter=2, plan=PLAN, by="ann")
    for _ in range(3):
        scene.restart()
        scene.store(2, scene.rollouts[2])
    assert [(entry.who, entry.what) for entry in scene.audit] == [("ann", "draft")]


def test_a_release_that_cannot_come_back_is_said_until_it_has() -> None:
    """No key here: the rollout tells why, also after a restart; the log says taken back once it is, not before."""
    scene = started()
    scene.act_all()
    scene.order(2, "abort")
    assert scene.rollouts[2].stranded == "release 1 gets a new counter"
    for _ in range(3):
        scene.do(scene.core.learn(JobFailed(TASK, NO_ROUND, "NotReadyError: it takes keys"), scene.now))
        scene.making.clear()
        scene.wait(RETURN_AGAIN_S)
    assert scene.rollouts[2].stranded.startswith("NotReadyError: it takes keys; tried again each minute; or: ")
    assert "roadcast release again vehicle 1" in scene.rollouts[2].stranded
    assert scene.rollouts[2].reason == "abort by ann"
    assert [entry.what for entry in scene.audit][-1] == "abort"
    scene.restart()
    assert [asked.counter for asked in scene.making] == [1]
    scene.make()
    assert (scene.fleet, scene.rollouts[2].stranded) == (3, "")
    scene.wait(RETURN_AGAIN_S)
    assert [entry.what for entry in scene.audit][-2:] == ["abort", "take-back"]
    assert scene.audit[-1].detail == "the fleet has release 3"


def test_a_round_that_fails_strands_no_rollout() -> None:
    """Only the failure of what a rollout asked for is told by it."""
    scene = started()
    scene.act_all()
    scene.order(2, "abort")
    scene.do(scene.core.learn(JobFailed(TASK, 1, "no memory"), scene.now))
    assert scene.rollouts[2].stranded == "release 1 gets a new counter"


def test_an_aborted_first_release_says_that_devices_stay_on_it() -> None:
    """There is none to go back to, so nothing is asked for; the next release ends it."""
    scene = RolloutScene(4)
    scene.releases.clear()
    scene.fleet = scene.task.release = 0
    for dev in scene.devices.values():
        dev.running = dev.tried = 0
    scene.draft(2)
    scene.order(2, "start", PLAN)
    scene.act_all()
    scene.order(2, "abort")
    scene.wait(10 * RETURN_AGAIN_S)
    assert (scene.making, scene.rollouts[2].stranded) == ([], "there is no release before it; push another one")
    scene.store(3)
    assert scene.rollouts[2].stranded == ""
    assert scene.audit[-1].what == "take-back"


def test_the_reason_of_a_pause_goes_with_it() -> None:
    """Resumed, a rollout does not say any more who paused it."""
    scene = started()
    scene.order(2, "pause")
    assert scene.rollouts[2].reason == "paused by ann"
    scene.order(2, "resume")
    assert (scene.state(2), scene.rollouts[2].reason) == ("canary", "")


def test_a_start_for_nobody_is_refused_and_blocks_no_other() -> None:
    """A tag that no device bears, a tier that there is not: the draft stays one, and another release can start."""
    scene = RolloutScene(10)
    scene.draft(2)
    scene.draft(3)
    for to in ("tag=nroth", "tier=nanno", "tag=north,tier=none"):
        answer = scene.order(2, "start", msgspec.structs.replace(PLAN, to=to)) or ""
        assert f"no device that has been heard of is {to!r}" in answer
    assert scene.state(2) == "draft"
    assert scene.order(3, "start", PLAN) == ""


def test_an_order_about_a_rollout_that_is_over_says_what_can_be_done() -> None:
    """Rolled back once, neither the old release nor the new one can be again; how to go back further is told."""
    scene = started()
    for _ in range(3):
        scene.act_all()
        scene.wait(1)
        scene.wait(SOAK)
    assert scene.order(2, "abort") == "the rollout of release 2 is complete: it takes rollback; " + AGAIN
    assert scene.order(2, "rollback") == ""
    assert scene.order(2, "rollback") == "the rollout of release 2 is aborted: it is over; " + AGAIN
    scene.make()
    scene.wait(RETURN_AGAIN_S)
    over = "the fleet has release 3, and the rollout of {0}, if any, is over; " + AGAIN
    assert [scene.order(n, "rollback") for n in (1, 2)] == [over.format(1), over.format(2)]
    assert "release 3 is the fleet's and has no rollout" in (scene.order(3, "rollback") or "")
