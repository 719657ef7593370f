"""Several rollouts: whose they are, which goes first, what overtakes them, and who is told no."""

from __future__ import annotations

import msgspec

from broker_server.records import RolloutRecord
from tests.broker_server.rollout_scene import PLAN, RolloutScene, release
from tests.broker_server.scenes import TASK
from tests.broker_server.test_rollout import SOAK, started


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


def test_orders_that_make_no_sense_are_refused_with_the_reason() -> None:
    """A release without a rollout, a second one at once, and what the state does not take."""
    scene = started()
    assert "has no rollout" in (scene.order(9, "pause") or "")
    assert "does not take 'rollback'" in (scene.order(2, "rollback") or "")
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
