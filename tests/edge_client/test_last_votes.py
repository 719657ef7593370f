"""What a device told last: the base that survives any death, and the answer in full when there is no base to be had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_server.last_reports import LastReports
from edge_client.last_votes import VOTES_FILE, LastVotes, in_full
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.effects import Send
from edge_protocol.errors import StoreError
from edge_protocol.trunks import TrunkChange
from edge_protocol.vote_codec import decode_votes
from tests.edge_client.core_driver import SPEC, report
from tests.edge_client.device_rig import DeviceRig, device_config

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def answer(number: int, samples: int = 40, proxy: str = "ab" * 32) -> m.KnowledgeReport:
    """A report on one proxy set that says something else each round."""
    rng = np.random.default_rng(number)
    levels = [rng.integers(0, 6, samples), rng.integers(0, 4, samples), rng.integers(1, 8, samples), np.ones(6)]
    votes = m.ClassVotes(*(pack(each.astype("u1")) for each in levels))
    return msgspec.structs.replace(report(number, 1), proxy=proxy, votes=votes)


def told(folder: Path) -> LastVotes:
    """A memory in which the server has accepted the answer of round 1."""
    last = LastVotes(folder / VOTES_FILE)
    assert last.code(answer(1), ONE) == in_full(answer(1))
    last.accepted(ONE)
    return last


def test_a_report_is_told_beside_what_the_server_accepted(tmp_path: Path) -> None:
    """The base is the acknowledged report, also for another instance, and not the one still on its way."""
    last = told(tmp_path)
    again = LastVotes(tmp_path / VOTES_FILE)
    for number, message in ((2, TWO), (3, THREE)):
        coded = again.code(answer(number), message)
        assert coded.votes.base == 1
        assert decode_votes(coded.votes, "classify", answer(1).votes) == answer(number).votes
    again.accepted(TWO)
    assert last.before(SPEC.label_space, "ab" * 32) == answer(1).votes, "an old acknowledgement says nothing"
    again.accepted(THREE)
    assert last.before(SPEC.label_space, "ab" * 32) == answer(3).votes


def test_another_proxy_set_has_no_base(tmp_path: Path) -> None:
    """Neither another set, nor another label space, nor another number of votes is told beside the last one."""
    last = told(tmp_path)
    assert last.before(SPEC.label_space, "cd" * 32) is None
    assert last.before("other", "ab" * 32) is None
    for other in (answer(2, proxy="cd" * 32), answer(2, samples=41)):
        assert last.code(other, TWO) == in_full(other)


@pytest.mark.parametrize("damage", [b"", b"\x00", b"not votes at all"])
def test_a_damaged_file_costs_a_report_in_full(tmp_path: Path, damage: bytes) -> None:
    """Whatever stands in the file, the next report is told, without a base, and the one after it has one again."""
    last = told(tmp_path)
    (tmp_path / VOTES_FILE).write_bytes(damage)
    assert last.code(answer(2), TWO) == in_full(answer(2))
    last.accepted(TWO)
    assert last.code(answer(3), THREE).votes.base == 2


def test_an_unknown_base_is_forgotten_once(tmp_path: Path) -> None:
    """The refused report comes back to be told in full; for another message, or told in full, nothing does."""
    last = told(tmp_path)
    last.code(answer(2), TWO)
    assert last.unknown(ONE) is None
    assert last.unknown(TWO) == answer(2)
    assert last.code(answer(2), THREE) == in_full(answer(2))
    assert last.unknown(THREE) is None


def test_a_change_of_the_trunk_is_told_whole_and_again_and_is_no_base(tmp_path: Path) -> None:
    """It travels beside the coded votes, also when they are told again in full; once accepted it is forgotten."""
    last = told(tmp_path)
    size = (tmp_path / VOTES_FILE).stat().st_size
    report = msgspec.structs.replace(answer(2), trunk=TrunkChange("ab" * 32, 5, bytes(4000)))
    assert last.code(report, TWO).trunk == report.trunk
    assert last.unknown(TWO) == report
    last.code(report, THREE)
    last.accepted(THREE)
    assert (tmp_path / VOTES_FILE).stat().st_size < size + 100


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    """Where nothing can be written, coding beside a base is refused, for the report could not be told again."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        LastVotes(tmp_path / "file" / VOTES_FILE).code(answer(1), ONE)


def test_the_file_survives_kill_9(tmp_path: Path) -> None:
    """A writer that is killed in the middle leaves an acknowledged report, whole, of a round that it had told."""
    script = (
        "import sys; from pathlib import Path; from edge_client.last_votes import LastVotes;"
        "from tests.edge_client.test_last_votes import answer\n"
        "last, reports = LastVotes(Path(sys.argv[1])), [answer(n) for n in range(1, 9)]\n"
        "for n in range(10_000):\n"
        "    id = n.to_bytes(16, 'big'); last.code(reports[n % 8], id); last.accepted(id); print(n, flush=True)"
    )
    path = tmp_path / VOTES_FILE
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as writer:
        assert writer.stdout is not None
        assert any(int(line) >= 20 for line in writer.stdout)
        os.kill(writer.pid, signal.SIGKILL)
    kept = LastVotes(path).before(SPEC.label_space, "ab" * 32)
    assert kept in [answer(number).votes for number in range(1, 9)]


def test_a_device_and_its_centre_agree_on_the_base(tmp_path: Path) -> None:
    """In full, beside the first, beside the second after a restart, and in full for a centre that forgot everything."""
    rig = DeviceRig(device_config(tmp_path))
    for number in range(1, 5):
        if number == 3:
            rig.close()
            rig.boot()
        if number == 4:
            rig.centre.last_reports = LastReports()
        rig.agent._uplink.send(Send(answer(number, proxy="ab" * 8 + "0" * 48), durable=True), now=0)
        rig.until(lambda number=number: _votes(rig, number) and not len(rig.agent.outbox), f"report {number}")  # type: ignore[misc]
    assert all(_votes(rig, number) == answer(number).votes for number in range(1, 5))
    told = dict.fromkeys((coded.round, coded.votes.base) for coded in rig.centre.coded)
    assert list(told) == [(1, 0), (2, 1), (3, 2), (4, 3), (4, 0)]
    assert rig.agent.outbox.answered == 4
    rig.close()


def _votes(rig: DeviceRig, number: int) -> object:
    """What the centre has heard in a round, if anything."""
    return next((said.votes for said in rig.centre.of(m.KnowledgeReport) if said.round == number), None)
