"""What must not be lost is on the disk until the server says that it has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from queue import Queue

import numpy as np
import pytest

from edge_client.outbox import ASIDE_S, FIRST_PAUSE_S, LONGEST_PAUSE_S, Outbox
from edge_client.stamp import Stamp
from edge_client.uplink import Uplink
from edge_protocol import messages as m
from edge_protocol.effects import Send
from edge_protocol.errors import StoreError
from edge_protocol.ids import DeviceId
from edge_protocol.topics import Topics
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from tests.edge_client.core_driver import report
from tests.fakes.small_centre import FLEET, SmallCentre

WRITER = """
import sys
from pathlib import Path
from edge_client.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]))
for number in range(10_000):
    outbox.put(number.to_bytes(16, "big"), "result", b"x" * 100)
    print(number, flush=True)
"""


def ids(outbox: Outbox, now: float = 1e9, limit: int = 1000) -> list[int]:
    """Numbers of the messages that are due."""
    return [int.from_bytes(w.message_id, "big") for w in outbox.due(now, limit)]


def put(outbox: Outbox, name: int, kind: m.Kind = "result", **more: object) -> int:
    """Put a message of 100 bytes."""
    return outbox.put(name.to_bytes(16, "big"), kind, b"x" * 100, **more)  # type: ignore[arg-type]


def test_a_message_stays_until_it_is_acknowledged_and_across_restarts(tmp_path: Path) -> None:
    """Reports and states go before results, each in order of age."""
    outbox = Outbox(tmp_path / "outbox.db")
    for number, kind in ((1, "result"), (2, "result"), (3, "knowledge"), (4, "deployment")):
        put(outbox, number, kind)  # type: ignore[arg-type]
    assert ids(outbox) == [3, 4, 1, 2]
    assert outbox.clear((3).to_bytes(16, "big")) == (True, None)
    assert outbox.clear((3).to_bytes(16, "big")) == (False, None)
    outbox.close()
    again = Outbox(tmp_path / "outbox.db")
    assert ids(again) == [4, 1, 2]
    assert len(again) == 3
    again.close()


def test_what_was_sent_is_due_again_with_growing_pauses_or_on_a_new_link(tmp_path: Path) -> None:
    """5 s, 10 s, 20 s … up to 5 min; a new link makes everything due."""
    outbox = Outbox(tmp_path / "outbox.db")
    put(outbox, 1)
    assert outbox.next_deadline() is None
    now, pauses = 0.0, []
    for _ in range(9):
        outbox.sent((1).to_bytes(16, "big"), now)
        due = outbox.next_deadline()
        assert due is not None
        assert ids(outbox, due - 0.01) == []
        assert ids(outbox, due) == [1]
        pauses.append(due - now)
        now = due
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    outbox.sent((1).to_bytes(16, "big"), now)
    outbox.relink()
    assert ids(outbox, now) == [1]
    outbox.close()


def test_newer_state_takes_the_place_of_older_and_the_answered_round_is_remembered(tmp_path: Path) -> None:
    """One slot a task for its deployment, one for its report."""
    outbox = Outbox(tmp_path / "outbox.db")
    assert outbox.answered == 0
    put(outbox, 1, "deployment", slot="deployment/vehicle")
    put(outbox, 2, "deployment", slot="deployment/vehicle")
    put(outbox, 3, "knowledge", slot="knowledge/vehicle", number=7)
    assert ids(outbox) == [2, 3]
    assert outbox.clear((3).to_bytes(16, "big")) == (True, 7)
    outbox.close()
    again = Outbox(tmp_path / "outbox.db")
    assert again.answered == 7
    again.close()


def test_results_make_room_oldest_first_and_a_report_never_does(tmp_path: Path) -> None:
    """The file is bounded; what gave way is counted."""
    outbox = Outbox(tmp_path / "outbox.db", budget_bytes=450)
    put(outbox, 1, "knowledge")
    assert [put(outbox, number) for number in (2, 3, 4, 5, 6)] == [0, 0, 0, 1, 1]
    assert ids(outbox) == [1, 4, 5, 6]
    assert [put(outbox, number, "knowledge") for number in (7, 8, 9, 10)] == [1, 1, 1, 0]
    assert ids(outbox) == [1, 7, 8, 9, 10]
    outbox.close()


def test_a_limit_of_messages_a_turn_is_kept(tmp_path: Path) -> None:
    """The link's window decides how many go at once."""
    outbox = Outbox(tmp_path / "outbox.db")
    for number in range(10):
        put(outbox, number)
    assert ids(outbox, limit=3) == [0, 1, 2]
    outbox.close()


def test_a_disk_that_refuses_is_an_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    """A full database refuses the message and keeps the others."""
    outbox = Outbox(tmp_path / "outbox.db")
    put(outbox, 1)
    outbox._db.execute("pragma max_page_count = 1")
    with pytest.raises(StoreError, match=r"outbox\.db"):
        outbox.put(bytes(16), "result", b"x" * 200_000)
    assert ids(outbox) == [1]
    with pytest.raises(StoreError):
        outbox.put((1).to_bytes(16, "big"), "result", b"twice")
    outbox.close()


def test_an_outbox_in_memory_needs_no_disk(tmp_path: Path) -> None:
    """For a device whose disk refuses: it keeps messages until its process ends."""
    outbox = Outbox(tmp_path / "none" / "outbox.db", in_memory=True)
    put(outbox, 1)
    assert ids(outbox) == [1]
    outbox.close()
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_no_database_or_no_file_is_an_error(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "outbox.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match=r"outbox\.db"):
        Outbox(tmp_path / "outbox.db")
    with pytest.raises(StoreError):
        Outbox(tmp_path)


def test_what_was_put_survives_a_kill_of_the_process(tmp_path: Path) -> None:
    """Killed without warning while it writes: every message that `put` returned for is there."""
    path = tmp_path / "outbox.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = -1
        for line in writer.stdout:
            told = int(line)
            if told >= 40:
                os.kill(writer.pid, signal.SIGKILL)
                break
        told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    outbox = Outbox(path)
    assert ids(outbox, limit=100_000)[: told + 1] == list(range(told + 1))
    outbox.close()


def uplink(folder: Path, broker: MemoryBroker) -> tuple[Uplink, Outbox, MemoryTransport, Counter[str]]:
    """A device's way up."""
    outbox, drops = Outbox(folder / "outbox.db"), Counter[str]()
    link = MemoryTransport(broker, Queue())
    made = Uplink(Topics(FLEET), DeviceId("cam-1"), Stamp(FLEET, DeviceId("cam-1")), outbox, link, drops, list)
    return made, outbox, link, drops


def test_durable_messages_wait_for_the_link_and_keep_their_id(tmp_path: Path) -> None:
    """Sent while offline, they go out when there is a link, again without an ack, and never after one."""
    broker = MemoryBroker()
    centre = SmallCentre(broker, deaf={"result"})
    up, outbox, link, _ = uplink(tmp_path, broker)
    up.send(Send(m.IntervalResult("vehicle", "main", 0, 60, 1, {"car": 2}), durable=True), now=0)
    up.send(Send(m.Deployment("vehicle", 1, "fetching", 0, ""), durable=True), now=0)
    up.send(Send(m.Deployment("vehicle", 1, "committed", 1, "0" * 64), durable=True), now=0)
    up.send(Send(m.Telemetry({})), now=0)
    link.start()
    up.flush(now=1)
    up.flush(now=2)
    centre.turn()
    assert [type(body) for body in centre.heard] == [m.Deployment, m.IntervalResult]
    up.flush(now=1 + FIRST_PAUSE_S)
    centre.turn()
    results = [h for h, b in zip(centre.headers, centre.heard, strict=True) if isinstance(b, m.IntervalResult)]
    assert len({header.message_id for header in results}) == 1
    assert len(results) == 2
    outbox.clear(results[0].message_id)
    up.flush(now=1000)
    centre.turn()
    assert len(centre.of(m.IntervalResult)) == 2
    outbox.close()


def test_headers_count_up_and_name_the_boot() -> None:
    """Message ids never repeat; the sequence tells the order within a boot."""
    stamp, other = Stamp(FLEET, DeviceId("cam-1")), Stamp(FLEET, DeviceId("cam-1"))
    headers = [stamp.header() for _ in range(5)]
    assert [header.sequence for header in headers] == list(range(5))
    assert len({header.message_id for header in headers}) == 5
    assert len({header.boot_id for header in headers}) == 1
    assert other.header().boot_id != headers[0].boot_id
    assert headers[0].clock_trusted == (headers[0].time_s > 1_767_225_600)


def test_what_cannot_be_sent_is_counted(tmp_path: Path) -> None:
    """A message that breaks the contract, a disk that refuses, results that gave way."""
    broker = MemoryBroker()
    centre = SmallCentre(broker)
    up, outbox, link, drops = uplink(tmp_path, broker)
    link.start()
    huge = m.IntervalResult("vehicle", "main", 0, 60, 1, {"k" * 60 + str(i): 1.0 for i in range(2000)})
    up.send(Send(huge, durable=True), now=0)
    assert drops == {"oversized": 1}
    outbox._budget = 10
    up.send(Send(m.IntervalResult("vehicle", "main", 0, 60, 1, {}), durable=True), now=0)
    assert drops["outbox-full"] == 1
    outbox._db.execute("pragma query_only = on")
    up.send(Send(report(1, 1), durable=True), now=0)
    centre.turn()
    assert drops["outbox-failed"] == 1
    assert [said.votes for said in centre.of(m.KnowledgeReport)] == [report(1, 1).votes], (
        "it is tried once all the same"
    )
    outbox.close()


def test_samples_in_a_message_are_withheld_and_counted_and_bytes_are_counted_by_kind(tmp_path: Path) -> None:
    """A reason that quotes an image stays here; what is sent is counted with its topic, as the link counts it."""
    broker = MemoryBroker()
    centre = SmallCentre(broker)
    outbox, drops = Outbox(tmp_path / "outbox.db"), Counter[str]()
    link = MemoryTransport(broker, Queue())
    image = np.random.default_rng(0).integers(32, 127, (8, 8, 3), dtype=np.uint8)
    stamp = Stamp(FLEET, DeviceId("cam-1"))
    up = Uplink(Topics(FLEET), DeviceId("cam-1"), stamp, outbox, link, drops, lambda: [image])
    link.start()
    for reason in (image.tobytes().decode("ascii"), "a reason"):
        up.send(Send(m.Deployment("vehicle", 1, "failed", 0, "", reason), durable=True), now=0)
    up.send(Send(m.Telemetry({"a": 1.0})), now=0)
    centre.turn()
    assert [body.reason for body in centre.of(m.Deployment)] == ["a reason"]
    assert up.raw_bytes > 0
    assert drops == {"raw-bytes": 1}
    assert set(up.sent) == {"deployment", "telemetry"}
    assert sum(up.sent.values()) == link.traffic.bytes_up
    outbox.close()


def test_what_the_link_cannot_carry_never_enters_the_outbox(tmp_path: Path) -> None:
    """Link or no link it is counted, and the smaller one before it in its slot stays."""
    up, outbox, link, drops = uplink(tmp_path, MemoryBroker())
    link.max_packet_bytes = 500
    up.send(Send(m.Deployment("vehicle", 1, "fetching", 0, ""), durable=True), now=0)
    up.send(Send(m.Deployment("vehicle", 1, "failed", 0, "", "r" * 500), durable=True), now=0)
    link.start()
    up.send(Send(m.Telemetry({f"k{i}": 1.0 for i in range(200)})), now=0)
    assert (drops, len(outbox)) == ({"oversized": 2}, 1)
    outbox.close()


def test_what_lies_on_disk_and_the_link_cannot_carry_holds_nothing_up(tmp_path: Path) -> None:
    """It is put aside and counted once in an hour, links or no links; the rest goes; with room for it it goes too."""
    broker = MemoryBroker()
    centre = SmallCentre(broker)
    up, outbox, link, drops = uplink(tmp_path, broker)
    up.send(Send(m.Deployment("vehicle", 1, "failed", 0, "", "r" * 500), durable=True), now=0)
    up.send(Send(m.IntervalResult("vehicle", "main", 0, 60, 1, {}), durable=True), now=0)
    link.max_packet_bytes = 500
    link.start()
    for now in (1.0, 2.0, ASIDE_S):
        outbox.relink()
        up.flush(now)
    centre.turn()
    assert ({type(body) for body in centre.heard}, drops) == ({m.IntervalResult}, {"oversized": 1})
    outbox.relink()
    up.flush(1.0 + ASIDE_S)
    assert drops == {"oversized": 2}
    link.max_packet_bytes = 1000
    up.flush(1.0 + 2 * ASIDE_S)
    centre.turn()
    assert centre.of(m.Deployment)
    outbox.close()
