"""Reports that come late, too often, unreadable, or from a device that was retired."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from broker_server import effects as e
from broker_server.config import RoundsConfig
from broker_server.events import Distilled, Ordered, ReleaseStored
from broker_server.last_reports import MOST_TRIES
from broker_server.records import OrderRecord
from broker_server.rounds import REPORT_ROUNDS, Round, RoundState
from broker_server.task_rounds import TaskSetup
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.trunks import TrunkChange
from edge_protocol.vote_codec import encode_votes
from tests.broker_server.scenes import PROXY, SAMPLES, SPEC, TASK, Scene, acks, drops, of, release, result, votes

CAM, SLOW = DeviceId("cam-0"), DeviceId("cam-2")
ROUNDS = RoundsConfig(limit=20, quorum=2, enough=2, wait_for=3, deadline_s=60, pause_s=5)


def closed() -> Scene:
    """A scene whose round 1 went on with two reports of three."""
    scene = Scene(rounds=ROUNDS)
    scene.collecting()
    scene.report("cam-0")
    scene.report("cam-1")
    assert scene.round.state is RoundState.DISTILLING
    return scene


def go_on(scene: Scene) -> None:
    """The judge refuses, and the next round is called."""
    scene.core.learn(Distilled(TASK, scene.round.number, result(0.6, 0.5)), scene.now)
    scene.now += 5
    scene.core.tick(scene.now)
    assert scene.round.collecting


def retire(scene: Scene, device: str = "cam-0") -> list[e.Effect]:
    """Have an operator retire a device."""
    told = OrderRecord(task=TaskId(""), counter=0, order="retire", by="ann", at_s=scene.now, device=DeviceId(device))
    return scene.core.learn(Ordered(told), scene.now)


def test_enough_reports_close_a_round_before_its_deadline() -> None:
    """The third device is there and silent; two of three are enough, and the deadline is not waited for."""
    assert closed().now < closed().round.deadline_s


@pytest.mark.parametrize("when", ["distilling", "judging", "next", "released"])
def test_a_report_that_comes_after_its_round_is_kept_with_its_round(when: str) -> None:
    """It is acknowledged and saved under its own number, without its trunk; the round of now is as it was."""
    scene = closed()
    if when == "judging":
        scene.core.learn(Distilled(TASK, 1, result(0.5, 0.6)), scene.now)
    elif when == "next":
        go_on(scene)
    elif when == "released":
        scene.core.learn(Distilled(TASK, 1, result(0.5, 0.6)), scene.now)
        scene.core.learn(ReleaseStored(release(2, 1)), scene.now)
    before = scene.round.record(SPEC)
    effects = scene.report(SLOW, round=1, trunk=TrunkChange("ab" * 32, 5, b"a change"))
    assert acks(effects) == [(SLOW, True, "")]
    (saved,) = of(effects, e.SaveReport)
    assert (saved.stored.round, saved.stored.report.round, saved.stored.device) == (1, 1, SLOW)
    assert isinstance(saved.stored.report, m.KnowledgeReport)
    assert saved.stored.report.trunk is None
    assert scene.round.record(SPEC) == before
    assert SLOW not in scene.round.answered


def test_a_late_report_counts_towards_no_quorum_and_its_device_is_still_waited_for() -> None:
    """The next round goes on waiting for its own answer, which takes the late one's place."""
    scene = closed()
    go_on(scene)
    scene.report(SLOW, round=1)
    assert (scene.round.answered, SLOW in scene.round.waiting) == ({}, True)
    assert acks(scene.report(SLOW)) == [(SLOW, True, "")]
    assert set(scene.round.answered) == {SLOW}


def test_what_is_late_and_of_no_use_is_refused() -> None:
    """Older than what is kept, of a round that was never called, on other proxies, from no release, class means."""
    scene = closed()
    go_on(scene)
    nothing = [pack(np.zeros(shape, dtype)) for shape, dtype in ((0, "u1"), ((0, 64), "f2"), (0, "u1"))]
    means = m.PrototypeReport(SPEC.name, SPEC.label_space, 1, 1, "nano", *nothing)
    for device, changed, reason in (
        (CAM, {"round": 1}, "round-closed"),
        (SLOW, {"round": 0}, "round-closed"),
        (SLOW, {"round": 3}, "round-closed"),
        (SLOW, {"round": 1, "proxy": "0" * 64}, "wrong-proxy"),
        (SLOW, {"round": 1, "release": 9}, "unknown-release"),
        (SLOW, {"round": 1, "votes": votes(samples=3)}, "wrong-number-of-votes"),
    ):
        effects = scene.report(device, **changed)
        assert acks(effects) == [(device, False, reason)]
        assert not of(effects, e.SaveReport)
    assert acks(scene.say(SLOW, means)) == [(SLOW, False, "round-closed")]
    assert scene.round.refused == {}


def test_a_late_report_that_comes_again_gets_the_same_answer_and_is_not_saved_twice() -> None:
    """The same message, a second report of the same round, and one of an older round after it: one save in all."""
    scene = closed()
    go_on(scene)
    message = b"m" * 16
    assert of(scene.report(SLOW, round=1, message_id=message), e.SaveReport)
    again = scene.report(SLOW, round=1, message_id=message)
    assert (acks(again), of(again, e.SaveReport)) == ([(SLOW, True, "")], [])
    assert acks(scene.report(SLOW, round=1)) == [(SLOW, False, "round-closed")]


def test_a_report_older_than_reports_count_is_refused() -> None:
    """A device that took more than eight rounds to answer has nothing to say that counts."""
    scene = closed()
    for _ in range(REPORT_ROUNDS):
        go_on(scene)
        scene.report("cam-0")
        scene.report("cam-1")
    assert acks(scene.report(SLOW, round=1)) == [(SLOW, False, "round-closed")]
    assert acks(scene.report(SLOW, round=2)) == [(SLOW, True, "")]


def coded(number: int, data: bytes | None = None) -> m.CodedReport:
    """A report in few bytes, in full; with `data`, one that cannot be opened."""
    told = encode_votes(m.ClassVotes(*(pack(np.full(n, 1, "u1")) for n in (SAMPLES, SAMPLES, SAMPLES, 2))))
    told = told if data is None else msgspec.structs.replace(told, data=data)
    short = bytes.fromhex(PROXY.sha256)[: m.PROXY_BYTES]
    return m.CodedReport(SPEC.name, SPEC.label_space, number, 1, short, 10, told)


def test_a_device_does_not_have_the_server_open_one_report_after_the_other() -> None:
    """The second one in full is refused unopened, good or bad; the next round begins anew."""
    scene = Scene(rounds=ROUNDS)
    scene.collecting()
    assert acks(scene.say(CAM, coded(1, b""))) == [(CAM, False, "malformed")]
    for data in (b"", None):
        effects = scene.say(CAM, coded(1, data))
        assert acks(effects) == [(CAM, False, "too-many-tries")]
    assert scene.round.refused == {CAM: "malformed"}
    assert acks(scene.say(SLOW, coded(1))) == [(SLOW, True, "")]
    scene.report("cam-1")
    go_on(scene)
    assert acks(scene.say(CAM, coded(2))) == [(CAM, True, "")]


def test_rounds_that_are_over_give_a_device_no_further_tries() -> None:
    """However many earlier rounds it names, so many of its reports are opened while one round is the newest."""
    scene = closed()
    for _ in range(REPORT_ROUNDS - 2):
        go_on(scene)
        scene.report("cam-0")
        scene.report("cam-1")
    reasons = [acks(scene.say(SLOW, coded(number, b"")))[0][2] for number in range(1, scene.round.number + 1)]
    assert reasons == ["malformed"] * MOST_TRIES + ["too-many-tries"] * (len(reasons) - MOST_TRIES)


@pytest.mark.parametrize("ended", [False, True])
def test_a_late_report_that_cannot_be_opened_leaves_its_reason_with_its_round(ended: bool) -> None:
    """Written down at once, for a round that is over is not saved again; the next round knows nothing of it."""
    scene = closed()
    if ended:
        scene.core.learn(Distilled(TASK, 1, result(0.6, 0.5)), scene.now)
    state = scene.round.state
    effects = scene.say(SLOW, coded(1, b""))
    assert acks(effects) == [(SLOW, False, "malformed")]
    assert [(saved.record.number, saved.record.refused) for saved in of(effects, e.SaveRound)] == [
        (1, {SLOW: "malformed"})
    ]
    assert scene.round.state is state
    if not ended:
        go_on(scene)
        assert acks(scene.say(SLOW, coded(1, b""))) == [(SLOW, False, "malformed")]
        assert (scene.round.number, scene.round.refused, SLOW in scene.round.waiting) == (2, {}, True)


def test_an_unreadable_report_refuses_its_device_in_its_own_task_alone() -> None:
    """A report that names another task leaves this one waiting; one that names none is of every task."""
    for named, waits in ((SPEC.name, False), ("speed", True), (None, False)):
        scene = Scene(rounds=ROUNDS)
        scene.collecting()
        scene.core.unreadable(CAM, "not-finite: NaN", scene.now, named)
        assert (CAM in scene.round.waiting, CAM in scene.round.refused) == (waits, not waits)
    assert scene.core.unreadable(DeviceId("nobody"), "junk", scene.now) == []


def test_a_retired_device_teaches_no_more() -> None:
    """Its reports are struck out with the order's answer, the open round forgets it, and it is no base any more."""
    scene = Scene(rounds=msgspec.structs.replace(ROUNDS, enough=None))
    scene.collecting()
    scene.say(CAM, coded(1))
    assert of(retire(scene), e.ForgetReports) == [e.ForgetReports(CAM)]
    assert scene.round.collecting
    assert (scene.round.answered, CAM in scene.round.waiting) == ({}, False)
    assert scene.core.intake.last.round_of(TASK, CAM) == 0
    assert drops(scene.report("cam-0")) == ["retired-device"]


@pytest.mark.parametrize(("device", "given_up"), [("cam-0", True), ("cam-2", False)])
def test_a_round_that_is_distilled_from_a_retired_device_is_given_up(device: str, given_up: bool) -> None:
    """The next round does without; a device that said nothing costs no round."""
    scene = closed()
    effects = retire(scene, device)
    assert bool(of(effects, e.CancelDistil)) is given_up
    assert scene.round.state is (RoundState.ABANDONED if given_up else RoundState.DISTILLING)
    if given_up:
        assert scene.round.reason == "cam-0 was retired meanwhile"


def test_class_means_of_a_retired_device_give_a_round_up_unless_it_asks_nobody() -> None:
    """Who was heard with older class means is not kept in memory: any device of the task may have been."""
    for number, given_up in ((0, False), (3, True)):
        scene = Scene(rounds=ROUNDS)
        scene.task.setup = TaskSetup(SPEC, None, 0, ROUNDS)
        scene.birth("cam-0", 1)
        scene.task.round = Round(number, 1, None, 0, scene.now, state=RoundState.DISTILLING)
        retire(scene)
        assert scene.round.closed is given_up


@pytest.mark.parametrize(("further", "given_up"), [(REPORT_ROUNDS - 1, True), (REPORT_ROUNDS, False)])
def test_a_report_that_counts_no_more_gives_no_round_up(further: int, given_up: bool) -> None:
    """So many rounds after its only report, a retired device is in what is distilled, or is not."""
    scene = closed()
    for _ in range(further):
        go_on(scene)
        scene.report("cam-1")
        scene.report("cam-2")
    assert (scene.round.number, scene.round.state) == (1 + further, RoundState.DISTILLING)
    assert bool(of(retire(scene), e.CancelDistil)) is given_up


def test_an_older_report_of_a_retired_device_gives_the_round_up_too() -> None:
    """Said in round 1, it would still count in round 2, which is distilled without a new answer of it."""
    scene = closed()
    go_on(scene)
    scene.report("cam-1")
    scene.report("cam-2")
    assert scene.round.state is RoundState.DISTILLING
    assert of(retire(scene), e.CancelDistil) == [e.CancelDistil(TASK, 2)]
