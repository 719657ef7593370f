"""The server's brain, message by message: answers, refusals with their reasons, and hostile devices."""

from __future__ import annotations

import numpy as np
import pytest

from broker_server import effects as e
from broker_server.config import FleetConfig
from broker_server.coordinator import SPENT
from broker_server.registry import DeviceEvent, DeviceStatus
from edge_client.session import Session
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.effects import Send
from edge_protocol.ids import DeviceId
from tests.broker_server.scenes import TASK, Scene, acks, drops, of, votes


def test_a_report_is_saved_before_it_is_acknowledged() -> None:
    """Every save of the report comes before the acknowledgement in the order of effects."""
    scene = Scene()
    scene.collecting()
    kinds = [type(effect) for effect in scene.report("cam-0")]
    assert kinds.index(e.SaveReport) < kinds.index(e.SaveSeen) < kinds.index(Send)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"task": "speed"}, "wrong-task"),
        ({"label_space": "0" * 16}, "wrong-label-space"),
        ({"proxy": "0" * 64}, "wrong-proxy"),
        ({"round": 7}, "round-closed"),
        ({"round": 0}, "round-closed"),
        ({"release": 9}, "unknown-release"),
        ({"votes": votes(samples=3)}, "wrong-number-of-votes"),
        ({"votes": votes(classes=3)}, "wrong-outputs"),
        (
            {
                "votes": m.ForecastVotes(
                    pack(np.zeros((4, 1), np.float16)),
                    pack(np.ones((4, 1), np.float16)),
                )
            },
            "wrong-kind-of-votes",
        ),
    ],
)
def test_a_report_that_does_not_fit_is_refused_for_good(changed: dict[str, object], reason: str) -> None:
    """Each misfit has its own reason, is acknowledged so that it is not sent again, and never counts."""
    scene = Scene()
    scene.collecting()
    effects = scene.report("cam-0", **changed)
    assert acks(effects) == [("cam-0", False, reason)]
    assert reason in drops(effects)
    assert not of(effects, e.SaveReport)
    assert scene.round.answered == {}


def test_a_refused_device_is_not_waited_for_and_may_correct_itself() -> None:
    """A misfit of the open round ends the waiting; a later report that fits counts."""
    scene = Scene()
    scene.collecting()
    scene.report("cam-0", votes=votes(samples=3))
    assert scene.round.refused == {"cam-0": "wrong-number-of-votes"}
    assert "cam-0" not in scene.round.waiting
    assert acks(scene.report("cam-0")) == [("cam-0", True, "")]
    assert scene.round.refused == {}


def test_a_report_that_cannot_be_read_is_noted_and_not_waited_for() -> None:
    """The round has the reason; a stranger has none, and a good report stands before and after."""
    scene = Scene()
    scene.collecting()
    scene.core.unreadable(DeviceId("cam-0"), "not-finite: votes hold NaN", scene.now)
    assert scene.round.refused == {"cam-0": "not-finite: votes hold NaN"}
    assert "cam-0" not in scene.round.waiting
    scene.core.unreadable(DeviceId("stranger"), "junk", scene.now)
    assert "stranger" not in scene.round.refused
    scene.report("cam-0")
    assert scene.round.refused == {}
    scene.core.unreadable(DeviceId("cam-0"), "junk", scene.now)
    assert scene.round.refused == {}


def test_a_device_whose_privacy_budget_is_spent_is_not_waited_for() -> None:
    """Its state ends the waiting, in this round and the next, until it is born anew with something left to say."""
    assert Session.SPENT.value == SPENT
    scene = Scene()
    scene.collecting()
    assert scene.round.waiting == {"cam-0", "cam-1", "cam-2"}
    scene.say("cam-0", m.DeviceState(TASK, SPENT, 1, {}, {}))
    scene.say("cam-0", m.DeviceState(TASK, SPENT, 1, {}, {}))
    assert scene.round.waiting == {"cam-1", "cam-2"}
    scene.deployed("cam-0", 1)
    assert scene.task.ready == {"cam-1", "cam-2"}
    scene.birth("cam-0", 1, boot=b"second..")
    assert scene.task.ready == {"cam-0", "cam-1", "cam-2"}


def test_a_message_that_comes_again_gets_the_same_answer_and_counts_once() -> None:
    """Accepted and refused messages alike are answered from memory."""
    scene = Scene()
    scene.collecting()
    good, bad = b"g" * 16, b"b" * 16
    scene.report("cam-0", message_id=good)
    scene.report("cam-1", message_id=bad, proxy="0" * 64)
    assert acks(again := scene.report("cam-0", message_id=good)) == [("cam-0", True, "")]
    assert (drops(again), of(again, e.SaveReport)) == (["repeated"], [])
    assert acks(scene.report("cam-1", message_id=bad)) == [("cam-1", False, "wrong-proxy")]


def test_nobody_can_use_up_the_id_of_another_devices_message() -> None:
    """A report whose message id a stranger has sent before is stored all the same."""
    scene = Scene()
    scene.collecting()
    stolen = b"s" * 16
    assert acks(scene.report("cam-1", message_id=stolen, proxy="0" * 64)) == [("cam-1", False, "wrong-proxy")]
    honest = scene.report("cam-0", message_id=stolen)
    assert acks(honest) == [("cam-0", True, "")]
    assert len(of(honest, e.SaveReport)) == 1


def test_a_second_report_of_a_device_is_a_duplicate() -> None:
    """The first report of a round stands; another message of the same device is refused."""
    scene = Scene()
    scene.collecting()
    scene.report("cam-0", message_id=b"1" * 16)
    assert acks(scene.report("cam-0", message_id=b"2" * 16)) == [("cam-0", False, "duplicate")]
    assert scene.round.answered == {"cam-0": b"1" * 16}


def test_a_stranger_is_asked_for_its_birth_and_not_acknowledged() -> None:
    """A report of an unregistered device is kept by the device until it is known; asking is rate limited."""
    scene = Scene()
    scene.collecting()
    effects = scene.report("cam-9")
    assert drops(effects) == ["unknown-device"]
    assert [(s.to, type(s.body)) for s in of(effects, Send)] == [("cam-9", m.Rebirth)]
    assert of(scene.report("cam-9"), Send) == []
    scene.now += 10
    assert len(of(scene.report("cam-9"), Send)) == 1


def test_asking_strangers_costs_bounded_memory() -> None:
    """Names made up by the thousand do not grow the list of those who were asked."""
    scene = Scene(fleet=FleetConfig(max_devices=5))
    for number in range(50):
        scene.say(f"ghost-{number}", m.Telemetry({}))
    assert len(scene.core._asked) <= 5


def test_nobody_may_call_himself_server() -> None:
    """The server's own name is refused as a sender."""
    assert drops(Scene().birth("server")) == ["reserved-name"]


def test_a_full_fleet_refuses_births() -> None:
    """Beyond the limit a birth is dropped with its reason and not acknowledged."""
    scene = Scene(fleet=FleetConfig(max_devices=1))
    assert acks(scene.birth("cam-0")) == [("cam-0", True, "")]
    effects = scene.birth("cam-1")
    assert (drops(effects), acks(effects)) == (["birth-refused"], [])


def test_a_retired_device_is_ignored() -> None:
    """Nothing a retired device says has an effect but a counted drop."""
    scene = Scene()
    scene.birth("cam-0")
    scene.core.registry.fire(scene.core.registry.devices[DeviceId("cam-0")], DeviceEvent.RETIRE, scene.now)
    assert drops(scene.say("cam-0", m.Telemetry({}))) == ["retired-device"]
    assert scene.say("cam-0", m.Presence(True)) == []


@pytest.mark.parametrize("body", [m.Ack(bytes(16), True), m.Rebirth(), m.Label("t", "s", "l")])
def test_a_device_may_not_speak_for_the_server(body: m.Body) -> None:
    """Bodies that only a server sends are dropped."""
    scene = Scene()
    scene.birth("cam-0")
    assert drops(scene.say("cam-0", body)) == ["wrong-direction"]


def test_states_and_telemetry_that_come_late_do_not_replace_newer_ones() -> None:
    """Within a boot the sequence decides; what is older is counted and dropped."""
    scene = Scene()
    scene.birth("cam-0")
    state, reading = m.DeviceState("vehicle", "IDLE", 1, {}, {}), m.Telemetry({"soc_c": 50.0})
    old = scene.header("cam-0")
    assert len(of(scene.say("cam-0", state), e.SaveState)) == 1
    assert len(of(scene.say("cam-0", reading), e.SaveTelemetry)) == 1
    for body in (state, reading):
        assert drops(scene.core.handle(m.Envelope(old, body), scene.now)) == ["out-of-order"]


def test_states_of_tasks_that_a_device_does_not_run_are_dropped() -> None:
    """Names of tasks made up by a device take no room."""
    scene = Scene()
    scene.birth("cam-0")
    assert drops(scene.say("cam-0", m.DeviceState("other", "IDLE", 1, {}, {}))) == ["wrong-task"]


def test_a_deployment_of_an_earlier_boot_changes_nothing_but_is_acknowledged() -> None:
    """An outbox may hold messages of a boot before; the birth of the new one tells what runs."""
    scene = Scene()
    scene.first_release()
    scene.birth("cam-0", running=0)
    scene.birth("cam-0", running=1, boot=b"second..")
    effects = scene.deployed("cam-0", 0, state="failed", boot=b"first...")
    assert acks(effects) == [("cam-0", True, "")]
    assert scene.core.registry.devices[DeviceId("cam-0")].tasks[TASK].release == 1
    assert next(type(s.body) for s in of(effects, Send)) is m.Rebirth


def test_a_failed_deployment_is_remembered_with_its_reason() -> None:
    """A device that rolled back is registered with what runs and why."""
    scene = Scene()
    scene.birth("cam-0", running=1)
    scene.say("cam-0", m.Deployment("vehicle", 2, "ROLLED_BACK", 1, "", "golden outputs differ"))
    runs = scene.core.registry.devices[DeviceId("cam-0")].tasks[TASK]
    assert (runs.release, runs.deployment, runs.reason) == (1, "rolled_back", "golden outputs differ")
    effects = scene.say("cam-0", m.Deployment("clinic", 2, "committed", 1, ""))
    assert acks(effects) == [("cam-0", False, "wrong-task")]


def test_devices_of_another_label_space_are_not_ready() -> None:
    """A device whose outputs mean something else is never waited for."""
    scene = Scene()
    scene.first_release()
    scene.birth("cam-0", running=1, space="other")
    assert scene.task.ready == set()


def test_presence_of_strangers_and_of_other_boots_asks_for_a_birth() -> None:
    """Retained presence after the server lost its memory brings every device back; an old will changes nothing."""
    scene = Scene()
    assert [type(s.body) for s in of(scene.say("cam-0", m.Presence(True)), Send)] == [m.Rebirth]
    assert scene.say("cam-1", m.Presence(False)) == []
    scene.birth("cam-2")
    assert scene.say("cam-2", m.Presence(False), boot=b"earlier.") == []
    assert [type(s.body) for s in of(scene.say("cam-2", m.Presence(True), boot=b"later..."), Send)] == [m.Rebirth]
    assert scene.core.registry.devices[DeviceId("cam-2")].status is DeviceStatus.ONLINE
    assert scene.say("cam-2", m.Presence(True)) == []


def test_interval_results_and_needs_are_passed_on() -> None:
    """A result is saved and acknowledged; a need becomes a republication."""
    scene = Scene()
    scene.birth("cam-0")
    effects = scene.say("cam-0", m.IntervalResult("vehicle", "road", 0.0, 60.0, 1.0, {"a/in/car": 3.0}))
    assert len(of(effects, e.SaveResult)) == 1
    assert acks(effects) == [("cam-0", True, "")]
    assert scene.say("cam-0", m.Need("0" * 64, (1, 2))) == [e.Republish(DeviceId("cam-0"), "0" * 64, (1, 2))]


def test_silence_is_noticed_by_the_clock_alone() -> None:
    """A tick at the deadline moves a silent device, and its round goes on without it once it is offline."""
    scene = Scene(fleet=FleetConfig(stale_after_s=10, offline_after_s=10))
    scene.collecting()
    scene.report("cam-0")
    scene.report("cam-1")
    assert of(scene.core.tick(scene.now + 10), e.SaveDevice)
    scene.core.registry.fire(scene.core.registry.devices[DeviceId("cam-0")], DeviceEvent.HEARD, scene.now + 15)
    effects = scene.core.tick(scene.now + 20)
    assert of(effects, e.Distil)
