"""The replay store keeps a balanced share of what was seen, within its budget, whatever the disk does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.replay import Kept, ReplayStore, latest_raw, read_stored
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import StoreError

VEHICLE, SPEED, CLINIC = load_task("vehicle"), load_task("speed"), load_task("clinic")
ROW = 32 * 32 * 3 + 8 + 8 + 160


def image(number: int, target: int = -1, at_s: float = 0.0) -> Kept:
    """A kept image whose pixels tell its number."""
    return Kept(f"s-{number}", at_s, np.full((32, 32, 3), number % 256, np.uint8), target)


def test_samples_come_back_in_order_of_time_with_everything_they_had(tmp_path: Path) -> None:
    """Raw, target, side and scale, for images, series and tasks with side inputs."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    assert store.add([image(2, 3, 20.0), image(1, -1, 10.0)]) == 0
    back = read_stored(tmp_path / "r.db", VEHICLE).samples
    assert back.raw[:, 0, 0, 0].tolist() == [1, 2]
    assert back.targets.tolist() == [-1, 3]
    assert back.side.shape == (2, 0)
    assert len(store) == 2
    store.close()
    for spec in (SPEED, CLINIC):
        store = ReplayStore(tmp_path / f"{spec.name}.db", 10_000_000)
        made = plugin_of(spec).simulate(spec, np.random.default_rng(1), 20)
        rows = [
            Kept(
                f"s-{i}",
                float(i),
                made.raw[i],
                int(made.targets[i]) if spec.labels else made.targets[i].astype(np.float32),
                made.side[i],
                made.scale[i],
            )
            for i in range(len(made))
        ]
        store.add(rows)
        back = read_stored(tmp_path / f"{spec.name}.db", spec).samples
        for name in ("raw", "targets", "side", "scale"):
            np.testing.assert_array_equal(getattr(back, name), getattr(made, name))
        store.close()


def test_the_budget_is_kept_and_rare_classes_and_hours_survive(tmp_path: Path) -> None:
    """A flood of cars at noon does not push out the one truck, the unlabelled, or the cars of the night."""
    store = ReplayStore(tmp_path / "r.db", 100 * ROW)
    night = [image(i, 1, 3600.0 * 2 + i) for i in range(10)]
    store.add([image(1000, 5, 100.0), *[image(2000 + i, -1, i) for i in range(5)], *night])
    for start in range(0, 600, 50):
        store.add([image(3000 + start + i, 1, 3600.0 * 12 + start + i) for i in range(50)])
    back = read_stored(tmp_path / "r.db", VEHICLE).samples
    counts = Counter(back.targets.tolist())
    assert len(back) == len(store) <= 100
    assert len(back) > 90
    assert counts[5] == 1
    assert counts[-1] == 5
    rows = store._db.execute("select hour, count(*), max(at_s) from samples where class = 1 group by hour").fetchall()
    hours = {hour: (count, newest) for hour, count, newest in rows}
    assert hours[2][0] == 10
    assert hours[12][1] == 3600.0 * 12 + 599, "within an hour the newest stay"
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


def test_reading_another_tasks_store_is_an_error_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    """Shapes are checked."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    assert len(read_stored(tmp_path / "r.db", SPEED).samples) == 0
    assert read_stored(tmp_path / "r.db", VEHICLE).samples.raw.shape == (0, 32, 32, 3)
    store.add([image(1)])
    with pytest.raises(StoreError):
        read_stored(tmp_path / "r.db", SPEED)
    with pytest.raises(StoreError):
        read_stored(tmp_path / "none.db", VEHICLE)
    store.close()


def test_windows_that_were_kept_before_sensors_had_numbers_stay(tmp_path: Path) -> None:
    """Beside numbered ones their sensor is unknown; alone they have no side input, as ever."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    made = plugin_of(SPEED).simulate(SPEED, np.random.default_rng(1), 2)
    old, new = (
        Kept(f"s-{i}", float(i), made.raw[i], made.targets[i].astype(np.float32), scale=made.scale[i]) for i in (0, 1)
    )
    store.add([old])
    assert read_stored(tmp_path / "r.db", SPEED).samples.side.shape == (1, 0)
    store.add([replace(new, side=np.float32([12_345]))])
    back = read_stored(tmp_path / "r.db", SPEED)
    np.testing.assert_array_equal(back.samples.side, [[np.nan], [12_345]])
    assert (back.names, back.at_s.tolist()) == (["s-0", "s-1"], [0.0, 1.0])
    store.close()


def test_the_newest_samples_can_be_read_by_another_thread(tmp_path: Path) -> None:
    """For a probation when no frame comes; nothing readable is no sample."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(i, at_s=float(i)) for i in range(9)])
    assert latest_raw(tmp_path / "r.db", VEHICLE, 3)[:, 0, 0, 0].tolist() == [8, 7, 6]
    assert len(latest_raw(tmp_path / "none.db", VEHICLE, 3)) == 0
    store.close()


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
