"""What an operator orders about one device has its effect, its answer and its entry in the audit log."""

from __future__ import annotations

import pytest

from broker_server import effects as e
from broker_server.events import Ordered
from broker_server.records import OrderRecord
from broker_server.rollout_plan import Member, Plan
from edge_protocol import messages as m
from edge_protocol.ids import DeviceId, TaskId
from tests.broker_server.scenes import TASK, Scene, acks, drops, of

CAM = DeviceId("cam-0")


def order(scene: Scene, what: str, device: str = "cam-0", *tags: str) -> list[e.Effect]:
    """What follows from an order."""
    asked = OrderRecord(
        task=TaskId(""), counter=0, order=what, by="ann", at_s=scene.now, device=DeviceId(device), tags=tags, number=7
    )
    return scene.core.learn(Ordered(asked), scene.now)


def answers(effects: list[e.Effect]) -> list[str | None]:
    """What the operator is told."""
    return [each.record.answer for each in of(effects, e.SaveOrder)]


def test_a_retired_device_is_ignored_until_it_is_taken_back() -> None:
    """Its record and its release topics go with the answer; reinstated, it is born again."""
    scene = Scene()
    scene.birth("cam-0")
    effects = order(scene, "retire")
    assert answers(effects) == [""]
    assert [each.record.state for each in of(effects, e.SaveDevice)] == ["retired"]
    assert of(effects, e.WithdrawRelease) == [e.WithdrawRelease(TASK, (CAM,))]
    assert drops(scene.say("cam-0", m.Telemetry({}))) == ["retired-device"]
    assert drops(scene.birth("cam-0")) == ["birth-refused"]
    assert answers(order(scene, "retire")) == ["cam-0 is retired"]
    assert answers(order(scene, "reinstate")) == [""]
    assert acks(scene.birth("cam-0")) == [("cam-0", True, "")]
    assert answers(order(scene, "reinstate")) == ["cam-0 is online"]


def test_tags_are_given_and_taken_and_outlive_births_and_restarts() -> None:
    """They are in the device's record; a rollout finds the device by them."""
    scene = Scene()
    scene.birth("cam-0")
    (saved,) = of(order(scene, "tag", "cam-0", "+north", "+old"), e.SaveDevice)
    assert saved.record.tags == ("north", "old")
    (saved,) = of(order(scene, "tag", "cam-0", "-old", "-never"), e.SaveDevice)
    assert saved.record.tags == ("north",)
    scene.birth("cam-0")
    again = Scene()
    again.core.restore([saved.record], [], again.now)
    for each in (scene, again):
        assert each.core.registry.devices[CAM].tags == {"north"}
    member = Member(CAM, "nano", tags=frozenset({"north"}))
    assert Plan(to="tag=no*").covers(member, {})
    assert not Plan(to="tag=south").covers(member, {})
    assert Plan(to="tag=south").covers(member, {"south": ("cam-*",)})


def test_what_cannot_be_done_is_answered_and_changes_nothing() -> None:
    """An unknown device, an unknown order, too many tags: the reason, no record, no entry in the log."""
    scene = Scene()
    scene.birth("cam-0")
    for effects, reason in (
        (order(scene, "retire", "cam-9"), "there is no device 'cam-9' in this fleet"),
        (order(scene, "paint"), "'paint' is no order"),
        (order(scene, "tag", "cam-0", *(f"+t{n}" for n in range(33))), "cam-0 would have 33 tags; 32 at most"),
    ):
        assert answers(effects) == [reason]
        assert not of(effects, e.SaveDevice)
        assert not of(effects, e.SaveAudit)
    assert scene.core.registry.devices[CAM].tags == frozenset()


@pytest.mark.parametrize("what", ["retire", "tag"])
def test_the_log_tells_who_did_it(what: str) -> None:
    """One entry, with the operator and the device."""
    scene = Scene()
    scene.birth("cam-0")
    (noted,) = of(order(scene, what, "cam-0", "+north"), e.SaveAudit)
    assert (noted.entry.who, noted.entry.what, noted.entry.detail) == ("ann", what, "cam-0 +north")
