"""The replay store keeps a balanced share of what was seen, within its budget, whatever the disk does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge_client.replay import Kept, ReplayStore
from edge_client.stored import read_stored
from edge_models.tasks import load_task
from edge_protocol.errors import StoreError

VEHICLE = load_task("vehicle")
MIDNIGHT = 1.8e9 // 86_400 * 86_400
ROW = 32 * 32 * 3 + 8 + 8 + 160


def image(number: int, target: int = -1, at_s: float = 0.0) -> Kept:
    """A kept image whose pixels tell its number."""
    return Kept(f"s-{number}", at_s, np.full((32, 32, 3), number % 256, np.uint8), target)


def test_the_budget_is_kept_and_rare_classes_and_hours_survive(tmp_path: Path) -> None:
    """A flood of cars at noon does not push out the one truck, the unlabelled, or the cars of the night."""
    store = ReplayStore(tmp_path / "r.db", 100 * ROW)
    night = [image(i, 1, MIDNIGHT + 3600.0 * 2 + i) for i in range(10)]
    store.add([image(1000, 5, MIDNIGHT), *[image(2000 + i, -1, MIDNIGHT + i) for i in range(5)], *night])
    for start in range(0, 600, 50):
        store.add([image(3000 + start + i, 1, MIDNIGHT + 3600.0 * 12 + start + i) for i in range(50)])
    back = read_stored(tmp_path / "r.db", VEHICLE).samples
    counts = Counter(back.targets.tolist())
    assert len(back) == len(store) <= 100
    assert len(back) > 90
    assert counts[5] == 1
    assert counts[-1] == 5
    rows = store._db.execute("select hour, count(*), max(at_s) from samples where class = 1 group by hour").fetchall()
    hours = {hour: (count, newest) for hour, count, newest in rows}
    assert hours[2][0] == 10
    assert hours[12][1] == MIDNIGHT + 3600.0 * 12 + 599, "within an hour the newest stay"
    store.close()


def test_a_sample_of_the_same_name_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """A label that comes later replaces the unlabelled sample; counts stay right across a restart."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1), image(2)])
    store.add([image(1, 4)])
    assert len(store) == 2
    assert store.relabel("s-2", 5)
    assert not store.relabel("s-99", 5)
    assert store.has("s-2")
    assert not store.has("s-99")
    assert sorted(read_stored(tmp_path / "r.db", VEHICLE).samples.targets.tolist()) == [4, 5]
    counts, size = dict(+store._counts), store._bytes
    store.close()
    again = ReplayStore(tmp_path / "r.db", 1_000_000)
    assert (dict(again._counts), again._bytes) == (counts, size)
    again.close()


def test_a_sample_without_a_label_never_takes_the_place_of_one_that_has_one(tmp_path: Path) -> None:
    """A pack that is played again, or a picture that is seen twice, undoes no operator's work."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1), image(2)])
    store.relabel("s-1", 3)
    counts = dict(+store._counts)
    store.add([Kept("s-1", 7.0, np.full((32, 32, 3), 200, np.uint8)), image(2)])
    back = read_stored(tmp_path / "r.db", VEHICLE)
    assert dict(zip(back.names, back.samples.targets.tolist(), strict=True)) == {"s-1": 3, "s-2": -1}
    assert back.samples.raw.max() == 2
    assert dict(+store._counts) == counts
    store.add([Kept("s-1", 7.0, np.full((32, 32, 3), 200, np.uint8), 4)])
    assert read_stored(tmp_path / "r.db", VEHICLE).samples.raw.max() == 200
    store.close()


def test_a_full_disk_costs_samples_which_are_counted_and_nothing_else(tmp_path: Path) -> None:
    """What was kept stays readable; when there is room again, samples are kept again."""
    store = ReplayStore(tmp_path / "r.db", 100_000_000)
    store.add([image(1)])
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages + 1}")
    assert store.add([image(i) for i in range(2, 60)]) == 58
    assert store.dropped == 58
    assert len(store) == 1
    assert len(read_stored(tmp_path / "r.db", VEHICLE).samples) == 1
    store._db.execute("pragma max_page_count = 1000000")
    assert store.add([image(i) for i in range(2, 60)]) == 0
    assert len(store) == 59
    store.close()


def test_a_disk_that_became_read_only_refuses_labels_too(tmp_path: Path) -> None:
    """Counted, never raised."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1)])
    store._db.execute("pragma query_only = on")
    assert not store.relabel("s-1", 2)
    assert store.add([image(2)]) == 1
    assert store.dropped == 2
    store.close()


def test_a_damaged_store_is_put_aside_and_begun_anew(tmp_path: Path) -> None:
    """The device goes on learning from what comes."""
    (tmp_path / "r.db").write_bytes(b"no database at all" * 1000)
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    assert len(store) == 0
    assert (tmp_path / "r.damaged").exists()
    assert store.add([image(1)]) == 0
    store.close()


def test_a_full_disk_damages_no_store(tmp_path: Path) -> None:
    """What cannot be opened now is left where it is, for when there is room again."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1)])
    store.close()
    (tmp_path / "r.db-wal").mkdir()
    with pytest.raises(StoreError, match="replay store"):
        ReplayStore(tmp_path / "r.db", 1_000_000)
    (tmp_path / "r.db-wal").rmdir()
    assert not (tmp_path / "r.damaged").exists()
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    assert len(store) == 1
    store.close()


def test_a_store_in_memory_needs_no_disk(tmp_path: Path) -> None:
    """For a device whose disk refuses: it keeps samples until its process ends."""
    store = ReplayStore(tmp_path / "none" / "r.db", 1_000_000, in_memory=True)
    assert store.add([image(1)]) == 0
    assert len(store) == 1
    store.close()
    assert not (tmp_path / "none").exists()


def test_a_store_that_cannot_be_there_is_an_error(tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StoreError, match="replay store"):
        ReplayStore(tmp_path / "state" / "r.db", 1_000_000)


def test_what_was_gathered_is_taken_once(tmp_path: Path) -> None:
    """An operator's label outlives a restart; another pack is taken; a disk that refused is asked again."""
    gathered = [image(i, 0) for i in range(3)]
    store = ReplayStore(tmp_path / "replay.db", 1_000_000)
    store.commission("pack 1", lambda: gathered)
    assert store.relabel(gathered[0].sample, 4)
    store.close()
    store = ReplayStore(tmp_path / "replay.db", 1_000_000)
    store.commission("pack 1", lambda: gathered)
    assert sorted(read_stored(tmp_path / "replay.db", VEHICLE).samples.targets.tolist()) == [0, 0, 4]
    store.commission("pack 2", lambda: gathered)
    assert read_stored(tmp_path / "replay.db", VEHICLE).samples.targets.tolist() == [0, 0, 0]
    store.close()


def packed(number: int, target: int) -> Kept:
    """A commissioning pack's image."""
    return Kept(f"commissioning-{number}", float(number), image(number).raw, target)


@pytest.mark.parametrize("left", [2, 0])
def test_what_is_left_of_an_older_pack_goes_with_the_first_of_the_next(tmp_path: Path, left: int) -> None:
    """An installer who takes wrong labels out is rid of them, but of nothing else; the old pack may come again."""
    store = ReplayStore(tmp_path / "r.db", 10_000_000)
    store.add([image(1, 3)])
    store.commission("old", lambda: [packed(at, 0) for at in range(600)])
    store.commission("new", lambda: [packed(at, 1) for at in range(left)])
    assert read_stored(tmp_path / "r.db", VEHICLE).samples.targets.tolist() == [3, *[1] * left][-left - 1 :]
    assert (len(store), sum(store._counts.values())) == (left + 1, left + 1)
    store.commission("old", lambda: [packed(at, 0) for at in range(600)])
    assert len(store) == 601
    store.close()


def test_a_disk_that_refuses_the_next_pack_keeps_the_old_one(tmp_path: Path) -> None:
    """Its samples go in the same transaction in which the first of the next ones come."""
    store = ReplayStore(tmp_path / "r.db", 10_000_000)
    store.commission("old", lambda: [packed(at, 0) for at in range(10)])
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages}")
    store.commission("new", lambda: [packed(at, 1) for at in range(250)])
    assert (len(store), store.dropped) == (10, 250)
    assert set(read_stored(tmp_path / "r.db", VEHICLE).samples.targets.tolist()) == {0}
    store.close()


def test_a_pack_without_times_has_an_hour_of_its_own(tmp_path: Path) -> None:
    """Days of labelled frames neither push it out nor lose their own midnight to it."""
    store = ReplayStore(tmp_path / "r.db", 100 * ROW)
    store.add(image(i, 1, float(i)) for i in range(60))
    store.add(image(1000 + i, 1, MIDNIGHT + i * 300.0) for i in range(3 * 288))
    rows = store._db.execute("select hour, count(*) from samples group by hour").fetchall()
    hours = dict(rows)
    assert sorted(hours) == list(range(25))
    assert set(hours.values()) == {4}
    store.close()


@pytest.mark.parametrize("budget", [100_000, 20 * ROW + 1000, 1000 * ROW])
def test_a_pack_of_any_size_is_taken_within_any_budget(
    tmp_path: Path, budget: int, caplog: pytest.LogCaptureFixture
) -> None:
    """More than the file may ever hold: the newest of each class stay, nothing is refused, and it is said what fits."""
    store = ReplayStore(tmp_path / "r.db", budget)
    store.commission("pack", lambda: (image(i, i % 3, float(i)) for i in range(1100)))
    assert store.dropped == 0
    assert len(store) == budget // ROW
    counts = Counter(read_stored(tmp_path / "r.db", VEHICLE).samples.targets.tolist())
    assert max(counts.values()) - min(counts.values()) <= 1
    assert f"{len(store)} of 1100 samples fit" in caplog.text
    store.close()


def test_what_the_disk_refuses_of_a_pack_is_counted_and_comes_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A label that an operator gave meanwhile stays, and the pack is whole in the end."""
    gathered = [image(i, 0, float(i)) for i in range(700)]
    path = tmp_path / "r.db"
    store = ReplayStore(path, 10_000_000)
    store._db.execute("pragma max_page_count = 400")
    store.commission("pack", lambda: gathered)
    assert (len(store), store.dropped) == (256, 444)
    assert "the disk refused 444 samples" in caplog.text
    assert store.relabel("s-7", 4)
    store.close()
    for _ in range(2):
        store = ReplayStore(path, 10_000_000)
        store.commission("pack", lambda: gathered)
        assert (len(store), store.dropped) == (700, 0)
        store.close()
    assert np.flatnonzero(read_stored(path, VEHICLE).samples.targets).tolist() == [7]
