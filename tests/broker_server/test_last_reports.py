"""Coded reports at the server: opened beside what the device said last, refused when it is not here, taken in full."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from broker_server import effects as e
from broker_server.config import RoundsConfig
from broker_server.last_reports import LastReports
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.ids import DeviceId
from edge_protocol.trunks import TrunkChange
from edge_protocol.vote_codec import encode_votes
from tests.broker_server.scenes import PROXY, SAMPLES, SPEC, Scene, acks, of

CAM = DeviceId("cam-0")


def votes(*names: int, density: int = 5) -> m.ClassVotes:
    """Votes for these of two classes."""
    levels = [np.array(names), np.full(SAMPLES, 1), np.full(SAMPLES, density), np.ones(2)]
    return m.ClassVotes(*(pack(each.astype("u1")) for each in levels))


FIRST, SECOND = votes(0, 1, 0, 1), votes(0, 1, 1, 1)


def coded(number: int, answer: m.ClassVotes, base: m.ClassVotes | None = None, of_round: int = 0) -> m.CodedReport:
    """A coded report of a round."""
    short = bytes.fromhex(PROXY.sha256)[: m.PROXY_BYTES]
    return m.CodedReport(SPEC.name, SPEC.label_space, number, 1, short, 10, encode_votes(answer, base, of_round))


def collecting() -> Scene:
    """A scene whose round 1 waits for three devices."""
    scene = Scene()
    scene.collecting()
    return scene


def second_round() -> Scene:
    """A scene in which ``cam-0`` has said `FIRST` in a round that was abandoned, and round 2 collects."""
    scene = Scene(rounds=RoundsConfig(limit=3, quorum=2, wait_for=3, deadline_s=60, pause_s=5))
    scene.collecting()
    scene.say(CAM, coded(1, FIRST))
    for _ in range(2):
        scene.now += 61
        scene.core.tick(scene.now)
        scene.birth("cam-1", 1)
    assert (scene.round.number, scene.round.collecting) == (2, True)
    return scene


def test_a_report_in_full_is_stored_decoded() -> None:
    """Without a base, the votes are opened, and what is saved is the plain report with the whole hash."""
    scene = collecting()
    effects = scene.say(CAM, coded(1, FIRST))
    assert acks(effects) == [(CAM, True, "")]
    (saved,) = of(effects, e.SaveReport)
    assert saved.stored.report == m.KnowledgeReport(SPEC.name, SPEC.label_space, 1, 1, PROXY.sha256, 10, FIRST)


def test_a_change_of_the_trunk_is_stored_and_not_remembered() -> None:
    """It goes to the database with its report; as a base for the next, only the votes are held in memory."""
    scene = collecting()
    trunk = TrunkChange("ab" * 32, 5, b"a change")
    effects = scene.say(CAM, msgspec.structs.replace(coded(1, FIRST), trunk=trunk))
    assert of(effects, e.SaveReport)[0].stored.report.trunk == trunk
    assert [kept.trunk for kept in scene.core.intake.last._last.values()] == [None]


def test_a_later_report_is_told_beside_the_one_before() -> None:
    """In the next round the device's accepted votes are the base."""
    scene = second_round()
    effects = scene.say(CAM, coded(2, SECOND, FIRST, 1))
    assert acks(effects) == [(CAM, True, "")]
    assert of(effects, e.SaveReport)[0].stored.report.votes == SECOND


@pytest.mark.parametrize(
    ("base", "number"), [(SECOND, 1), (FIRST, 7), (votes(1, 1, 1, 0), 1)], ids=["other votes", "other round", "others"]
)
def test_a_device_with_another_base_answers_again_in_full(base: m.ClassVotes, number: int) -> None:
    """Whatever differs, the answer is refused as ``unknown-base``, the round waits on, and the full answer counts."""
    scene = second_round()
    refused = scene.say(CAM, coded(2, SECOND, base, number))
    assert acks(refused) == [(CAM, False, "unknown-base")]
    assert not of(refused, e.SaveReport)
    assert scene.round.refused == {}
    assert CAM in scene.round.waiting
    assert acks(scene.say(CAM, coded(2, SECOND))) == [(CAM, True, "")]


def test_what_does_not_fit_is_refused_before_it_is_decoded() -> None:
    """Each misfit has its own reason, though the stream itself is no stream at all."""
    scene, good = collecting(), coded(1, FIRST)
    broken = msgspec.structs.replace(good.votes, data=b"")
    cases = {
        "wrong-proxy": msgspec.structs.replace(good, proxy=bytes(8), votes=broken),
        "wrong-label-space": msgspec.structs.replace(good, label_space="0" * 16, votes=broken),
        "round-closed": msgspec.structs.replace(good, round=9, votes=broken),
        "wrong-number-of-votes": msgspec.structs.replace(good, votes=msgspec.structs.replace(broken, samples=20_000)),
        "wrong-outputs": msgspec.structs.replace(good, votes=msgspec.structs.replace(broken, outputs=200)),
        "malformed": msgspec.structs.replace(good, votes=broken),
    }
    for reason, report in cases.items():
        assert acks(scene.say(CAM, report)) == [(CAM, False, reason)]


def test_reports_come_back_from_disk() -> None:
    """After a restart the stored reports are bases again, each for its own device, task and proxy set."""
    stored = m.KnowledgeReport(SPEC.name, SPEC.label_space, 1, 1, PROXY.sha256, 10, FIRST)
    last = LastReports()
    last.restore({CAM: stored})
    later = coded(2, SECOND, FIRST, 1)
    opened, _ = last.open(later, CAM, SPEC, PROXY.sha256, 2)
    assert opened is not None
    assert opened.votes == SECOND
    assert last.open(later, DeviceId("cam-1"), SPEC, PROXY.sha256, 2) == (None, "unknown-base")
    assert last.open(later, CAM, SPEC, "0" * 64, 2) == (None, "unknown-base")
