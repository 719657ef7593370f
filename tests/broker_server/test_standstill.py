"""While the broker is away, or when the clock is set, nobody gets late; what operators order is answered."""

from __future__ import annotations

import msgspec
import pytest

from broker_server import effects as e
from broker_server.coordinator import REBIRTH_PAUSE_S
from broker_server.registry import DeviceStatus
from broker_server.rounds import RoundState, restored
from edge_protocol import messages as m
from edge_protocol.effects import Send
from tests.broker_server.rollout_scene import PLAN, RolloutScene
from tests.broker_server.scenes import SPEC, Scene, of, release

DAY_S = 86_400.0
STRICT = msgspec.structs.replace(PLAN, max_failures=0)


def deaf(scene: RolloutScene | Scene, seconds: float) -> list[e.Effect]:
    """Lose the link for a time in which the server goes on looking at its clock; what follows when it is back."""
    scene.core.standstill.begin(scene.now)
    scene.core.standstill.begin(scene.now + 1)
    for _ in range(100):
        scene.now += seconds / 100
        assert scene.core.tick(scene.now) == []
    assert scene.core.next_deadline() is None
    return scene.core.standstill.end(scene.now)


def clock_set(scene: RolloutScene | Scene, by_s: float) -> list[e.Effect]:
    """Set the server's clock."""
    scene.now += by_s
    return scene.core.standstill.clock_set(by_s)


def started() -> RolloutScene:
    """A rollout whose canaries have been offered the release."""
    scene = RolloutScene(10)
    scene.draft(2)
    scene.order(2, "start", STRICT)
    scene.wait()
    return scene


@pytest.mark.parametrize("how", [deaf, clock_set])
def test_devices_that_cannot_be_heard_have_not_failed(how: object) -> None:
    """An outage, or a clock set forward, of many deadlines: canaries go on waiting, and fail at the deadline after."""
    scene = started()
    scene.wait(STRICT.deadline_s - 10)
    scene.do(how(scene, 100 * STRICT.deadline_s))  # type: ignore[operator]
    scene.wait(9)
    assert scene.state(2) == "canary"
    scene.wait(1)
    assert scene.state(2) == "aborted"


@pytest.mark.parametrize("how", [deaf, clock_set])
def test_a_wave_is_watched_while_it_can_be_heard(how: object) -> None:
    """An outage counts for no soak: the next wave begins when the canaries were watched for as long as was asked."""
    scene = started()
    scene.act_all()
    scene.wait()
    scene.wait(STRICT.soak_s - 10)
    scene.do(how(scene, DAY_S))  # type: ignore[operator]
    scene.wait(9)
    assert scene.rollouts[2].wave == 0
    scene.wait(1)
    assert scene.rollouts[2].wave == 1


def test_a_clock_that_is_set_back_delays_no_deadline() -> None:
    """A day back: a silent canary fails at its deadline, not a day later, and its release is taken back."""
    scene = started()
    clock_set(scene, -DAY_S)
    scene.wait(STRICT.deadline_s)
    assert (scene.state(2), len(scene.making)) == ("aborted", 1)
    scene.making.clear()
    clock_set(scene, -DAY_S)
    scene.wait(60)
    assert len(scene.making) == 1


def test_what_was_aborted_in_the_future_is_taken_back_after_a_restart() -> None:
    """The clock was a day ahead at the abort and is right when the next server starts."""
    scene = started()
    scene.act_all()
    scene.now += DAY_S
    scene.order(2, "abort")
    scene.now -= DAY_S
    scene.restart()
    assert len(scene.making) == 1


def test_orders_are_answered_while_the_broker_is_away() -> None:
    """A start and an abort are taken at once; whom they concern is told later."""
    scene = RolloutScene(10)
    scene.draft(2)
    scene.core.standstill.begin(scene.now)
    assert scene.order(2, "start", STRICT) == ""
    assert (scene.state(2), scene.own) == ("canary", {})
    scene.now += DAY_S
    scene.do(scene.core.standstill.end(scene.now))
    scene.wait()
    assert scene.own
    scene.core.standstill.begin(scene.now)
    assert scene.order(2, "abort") == ""
    assert scene.state(2) == "aborted"


@pytest.mark.parametrize("how", [deaf, clock_set])
def test_a_round_takes_reports_for_as_long_as_it_can_be_heard(how: object) -> None:
    """Its deadline moves, devices and disk are told; it then closes when it must."""
    scene = Scene()
    scene.collecting()
    deadline = scene.round.deadline_s
    scene.now += 50
    told = how(scene, 1000.0)  # type: ignore[operator]
    assert [p.call.deadline_s for p in of(told, e.PublishRound)] == [deadline + 1000]
    assert [s.record.deadline_s for s in of(told, e.SaveRound)] == [deadline + 1000]
    scene.core.tick(scene.now + 9)
    assert scene.round.collecting
    scene.core.tick(scene.now + 10)
    assert scene.round.state is RoundState.ABANDONED


def test_a_round_that_was_called_in_the_future_ends_after_a_restart() -> None:
    """Its deadline, and the pause after one that was closed, are no longer than they may be from now on."""
    scene = Scene()
    scene.collecting()
    record, devices = scene.round.record(SPEC), [d.record() for d in scene.core.registry.devices.values()]
    for now, state in ((scene.now - DAY_S, "collecting"), (scene.now - DAY_S, "abandoned")):
        again = Scene(now=now)
        kept = msgspec.structs.replace(record, state=state, closed_s=scene.now)
        again.task.resume(release(1), restored(kept, {}, 2), now)
        again.core.restore(devices, [], now)
        again.core.tick(now + 60)
        assert (again.round.number, again.round.closed) == ((1, True) if state == "collecting" else (2, False))


@pytest.mark.parametrize("how", [deaf, clock_set])
def test_a_device_is_not_away_because_the_server_was(how: object) -> None:
    """It is stale after as much silence as it may keep while somebody listens, and no device record is written."""
    scene = Scene()
    scene.birth("cam-0")
    scene.now += 99
    assert how(scene, DAY_S) == []  # type: ignore[operator]
    device = next(iter(scene.core.registry.devices.values()))
    assert scene.core.tick(scene.now) == []
    assert device.status is DeviceStatus.ONLINE
    saved = of(scene.core.tick(scene.now + 1), e.SaveDevice)
    assert [s.record.state for s in saved] == ["stale"]


def test_an_outage_and_a_clock_that_is_set_meanwhile_do_not_count_twice() -> None:
    """Ten minutes without a broker, in which the clock goes a day back: deadlines move by ten minutes less a day."""
    scene = Scene()
    scene.collecting()
    deadline = scene.round.deadline_s
    scene.core.standstill.begin(scene.now)
    scene.now += 300
    clock_set(scene, -DAY_S)
    scene.now += 300
    scene.core.standstill.end(scene.now)
    assert scene.round.deadline_s == deadline + 600 - DAY_S
    assert scene.core.standstill.end(scene.now + 5) == []


def test_a_stranger_is_asked_again_after_the_clock_was_set_back() -> None:
    """Who was asked for a birth by a clock a day ahead is asked at the next message, then not too often."""
    scene = Scene()
    asked = [of(scene.say("cam-0", m.Telemetry({})), Send)]
    scene.now -= DAY_S
    asked += [of(scene.say("cam-0", m.Telemetry({})), Send) for _ in range(2)]
    scene.now += REBIRTH_PAUSE_S
    asked += [of(scene.say("cam-0", m.Telemetry({})), Send)]
    assert [len(each) for each in asked] == [1, 1, 0, 1]
