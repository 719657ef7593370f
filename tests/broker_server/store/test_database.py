"""The database: batches, what comes back from them, a disk that is full, two users at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from broker_server import effects as e
from broker_server.records import DeviceRecord, DeviceTask, RoundRecord, SeenMessage, StoredReport, StoredState
from broker_server.store.database import Database
from edge_protocol import messages as m
from edge_protocol.blobs import cut
from edge_protocol.errors import StoreError
from edge_protocol.ids import DeviceId, TaskId
from tests.broker_server.scenes import PROXY, SPEC, TASK, release, votes

CAM = DeviceId("cam-1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    made = Database(tmp_path / "deep" / "server.db")
    yield made
    made.close()


def report(number: int, device: DeviceId = CAM, proxy: str = PROXY.sha256, message: int = 0) -> e.SaveReport:
    """A report of a round."""
    body = m.KnowledgeReport(SPEC.name, SPEC.label_space, number, 1, proxy, 10, votes())
    stored = StoredReport(
        round=number, device=device, message_id=message.to_bytes(16, "big"), received_s=1.0, report=body
    )
    return e.SaveReport(stored)


def round_record(number: int, state: str = "collecting") -> RoundRecord:
    """A round."""
    return RoundRecord(
        task=TASK, number=number, state=state, release=1, proxy=PROXY, samples=4, opened_s=1.5, refused={"x": "late"}
    )


def test_everything_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """A batch of every kind survives closing and opening again."""
    task = DeviceTask(task=TASK, label_space="s", tier="nano", student="a", release=2)
    device = DeviceRecord(
        device=CAM,
        state="online",
        boot_id=b"\x00\xff345678",
        board="b",
        software="1",
        runtime="r",
        cores=4,
        memory_bytes=5,
        tasks=(task,),
        seen_s=3.5,
    )
    state = StoredState(device=CAM, at_s=2.0, state=m.DeviceState("vehicle", "IDLE", 1, {"frames": 9}, {"p50": 1.5}))
    seen = SeenMessage(bytes(16), False, "late", 4.0)
    result = m.IntervalResult("vehicle", "road", 0.0, 60.0, 0.5, {"a/in/car": 2.0})
    first = Database(tmp_path / "server.db")
    first.apply([e.SaveDevice(device), e.SaveState(state), e.SaveRound(round_record(1)), report(1)])
    first.apply([e.SaveSeen(seen), e.SaveTelemetry(CAM, 1.0, m.Telemetry({"t": 1.0}))])
    first.apply([e.SaveResult(CAM, bytes(16), 70.0, result)])
    first.add_release(release(1))
    first.close()
    again = Database(tmp_path / "server.db")
    try:
        assert again.devices() == [device]
        assert again.states() == [state]
        assert again.rounds() == [round_record(1)]
        assert again.seen(since_s=0, limit=10) == [seen]
        assert again.reports(TASK, 1, PROXY.sha256) == {CAM: report(1).stored.report}
        assert again.releases() == [release(1)]
        assert again.results(TASK)[0]["counted"] == {"a/in/car": 2.0}
    finally:
        again.close()


def test_of_several_saves_of_one_thing_the_last_counts(database: Database) -> None:
    """Within a batch and across batches a later save replaces an earlier one."""
    database.apply([e.SaveRound(round_record(1)), e.SaveRound(round_record(1, "distilling"))])
    assert [r.state for r in database.rounds(TASK)] == ["distilling"]
    database.apply([e.SaveRound(round_record(1, "released"))])
    assert [r.state for r in database.rounds(TASK)] == ["released"]


def test_an_empty_batch_touches_nothing(database: Database) -> None:
    """No saves, no transaction."""
    database.apply([])
    assert database.rounds() == []


def test_old_reports_go_on_counting_for_a_while(database: Database) -> None:
    """The newest report of each device on the same proxies counts in later rounds, for eight of them."""
    other, _ = cut(b"other")
    b, c = DeviceId("b"), DeviceId("c")
    database.apply([report(1), report(2, b, message=1), report(2, c, other.sha256, message=2)])
    assert set(database.reports(TASK, 2, PROXY.sha256)) == {CAM, b}
    assert set(database.reports(TASK, 9, PROXY.sha256)) == {b}
    assert set(database.reports(TASK, 1, PROXY.sha256)) == {CAM}
    assert database.answered(TASK, 2) == {b: (1).to_bytes(16, "big"), c: (2).to_bytes(16, "big")}


def test_a_retired_device_leaves_no_report(database: Database) -> None:
    """What it said before goes, in the same batch and from earlier ones; what it says after it was taken back stays."""
    b = DeviceId("b")
    database.apply([report(1), report(1, b, message=1)])
    database.apply([report(2), e.ForgetReports(CAM)])
    assert set(database.reports(TASK, 2, PROXY.sha256)) == {b}
    database.apply([e.ForgetReports(b), report(2, b, message=2)])
    assert database.answered(TASK, 2) == {b: (2).to_bytes(16, "big")}
    database.apply([e.ForgetReports(b)])
    assert database.reports(TASK, 2, PROXY.sha256) == {}


def test_rounds_come_oldest_first_and_may_be_limited_to_the_newest(database: Database) -> None:
    """The limit takes from the end."""
    database.apply([e.SaveRound(round_record(n)) for n in (3, 1, 2)])
    assert [r.number for r in database.rounds()] == [1, 2, 3]
    assert [r.number for r in database.rounds(TASK, limit=2)] == [2, 3]
    assert database.rounds(TaskId("speed")) == []


def test_a_counter_is_taken_once(database: Database) -> None:
    """A second release with the same counter is refused; clearing marks one release only."""
    database.add_release(release(1))
    database.add_release(release(2))
    with pytest.raises(StoreError, match="release 2"):
        database.add_release(release(2))
    database.clear_release(TASK, 1)
    assert [r.on_broker for r in database.releases(TASK)] == [False, True]
    assert database.newest() == {TASK: 2}


def test_answers_and_results_are_pruned_by_age(database: Database) -> None:
    """Only what is older than the limits goes."""
    result = m.IntervalResult("vehicle", "road", 0.0, 60.0, 1.0, {})
    saves: list[e.Save] = [e.SaveSeen(SeenMessage(n.to_bytes(16, "big"), True, "", float(n))) for n in range(5)]
    saves += [e.SaveResult(CAM, n.to_bytes(16, "big"), float(n), result) for n in range(5)]
    database.apply(saves)
    assert database.prune(messages_before_s=2, results_before_s=4) == 6
    assert [s.at_s for s in database.seen(since_s=0, limit=2)] == [3.0, 4.0]
    assert len(database.results(TASK)) == 1


def test_a_full_disk_refuses_the_whole_batch_and_takes_it_later(database: Database) -> None:
    """Nothing of a refused batch is there; once there is room the same batch goes in."""
    with database.engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count={pages + 2}"))
    batch: list[e.Save] = [report(1, DeviceId(f"cam-{n}"), message=n) for n in range(2000)]
    with pytest.raises(StoreError, match=r"full.*will be sent again"):
        database.apply(batch)
    assert database.answered(TASK, 1) == {}
    with database.engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count=1000000"))
    database.apply(batch)
    assert len(database.answered(TASK, 1)) == 2000


def test_two_processes_may_use_one_database(database: Database) -> None:
    """What one writes the other reads at once."""
    other = Database(database.path)
    try:
        other.add_release(release(1))
        assert database.newest() == {TASK: 1}
    finally:
        other.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """Damage is a StoreError that names the file."""
    (tmp_path / "server.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StoreError, match=r"server\.db"):
        Database(tmp_path / "server.db")
    with pytest.raises(StoreError, match="server"):
        Database(tmp_path / "server.db" / "server.db")
