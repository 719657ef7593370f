"""An operator has a device measured: who is asked, what is stored, and what a rollout takes of it."""

from __future__ import annotations

import msgspec
import pytest

from broker_server import effects as e
from broker_server.events import Ordered
from broker_server.measuring import MEASURE, latency_of
from broker_server.records import OrderRecord
from broker_server.registry import DeviceEvent
from edge_protocol import messages as m
from edge_protocol.effects import Send
from edge_protocol.ids import DeviceId
from tests.broker_server.rollout_scene import PLAN, RolloutScene
from tests.broker_server.scenes import TASK, Scene, acks, drops, of
from tests.broker_server.test_rollout import started

ORDER = OrderRecord(task=TASK, counter=0, order=MEASURE, by="ann", at_s=0.0, device=DeviceId("cam-0"), seconds=5.0)


def measured(p95: float, release: int = 2, **more: float) -> m.Measured:
    """What a device says that was measured."""
    values = {"p50_ms": p95 / 2, "p95_ms": p95, "contended": 1.0, **more}
    return m.Measured("vehicle", bytes(16), release, "CPUExecutionProvider", 1000, values)


def answers(scene: Scene, order: OrderRecord) -> tuple[str | None, list[Send]]:
    """What an order comes to."""
    effects = scene.core.learn(Ordered(order), scene.now)
    return of(effects, e.SaveOrder)[-1].record.answer, of(effects, Send)


def test_a_device_that_is_there_is_asked() -> None:
    """One message to it alone; the order counts as done, and the device's answer comes by itself."""
    scene = Scene()
    scene.birth("cam-0")
    answer, sent = answers(scene, ORDER)
    assert (answer, sent) == ("", [Send(m.Measure("vehicle", 5.0), to=DeviceId("cam-0"))])


def test_a_device_that_cannot_be_asked_is_said_why() -> None:
    """Nobody of that name, another task's, and one that is gone."""
    scene = Scene()
    scene.birth("cam-0")
    for device in (DeviceId("ghost"), DeviceId("nobody")):
        answer, sent = answers(scene, msgspec.structs.replace(ORDER, device=device))
        assert "there is no device" in (answer or "")
        assert not sent
    there = scene.core.registry.devices[DeviceId("cam-0")]
    scene.core.registry.fire(there, DeviceEvent.GONE, scene.now)
    answer, sent = answers(scene, ORDER)
    assert "is offline" in (answer or "")
    assert not sent


def test_what_a_device_measured_is_stored_and_acknowledged_once() -> None:
    """The same message again gets the same answer and is not stored again; of another task it is refused."""
    scene = Scene()
    scene.birth("cam-0")
    header = scene.header("cam-0")
    first = scene.core.handle(m.Envelope(header, measured(5.0)), scene.now)
    assert of(first, e.SaveMeasured) == [e.SaveMeasured(DeviceId("cam-0"), scene.now, measured(5.0))]
    again = scene.core.handle(m.Envelope(header, measured(5.0)), scene.now)
    assert (acks(again), drops(again), of(again, e.SaveMeasured)) == (acks(first), ["repeated"], [])
    other = scene.say("cam-0", msgspec.structs.replace(measured(5.0), task="speed"))
    assert acks(other) == [("cam-0", False, "wrong-task")]
    assert not of(other, e.SaveMeasured)


@pytest.mark.parametrize(
    ("told", "latency"),
    [
        (measured(41.0), {"latency_p95_ms": 41.0}),
        (measured(41.0, contended=1.3), {}),
        (m.Measured("vehicle", bytes(16), 2, "", 0, {}, "it trains"), {}),
    ],
)
def test_a_contended_or_refused_measurement_judges_nothing(told: m.Measured, latency: dict[str, float]) -> None:
    """Only what had the processor for itself says something of the student."""
    assert latency_of(told) == latency


def failed(scene: RolloutScene) -> dict[str, str]:
    """Devices of the rollout that failed, and why."""
    return {name: p.reason for (_, name), p in scene.progress.items() if p.state == "failed"}


def test_a_rollout_fails_a_device_that_is_measured_too_slow() -> None:
    """On the new release, with the processor for itself; not when fast, on the old one, or without a limit."""
    scene = started(msgspec.structs.replace(PLAN, max_latency_p95_ms=40, max_failures=9))
    scene.act_all()
    first, second, third = (scene.devices[name] for name in list(scene.own)[:3])
    scene.say(first, measured(39.0))
    scene.say(second, measured(90.0, contended=2.0))
    scene.say(third, measured(90.0, release=1))
    assert failed(scene) == {}
    scene.say(second, measured(90.0))
    assert failed(scene) == {second.name: "p95 latency 90.0 ms is above 40 ms"}
    assert any(entry.what == "failed" and entry.who == second.name for entry in scene.audit)
    unlimited = started()
    unlimited.act_all()
    unlimited.say(next(iter(unlimited.devices.values())), measured(9e9))
    assert failed(unlimited) == {}
