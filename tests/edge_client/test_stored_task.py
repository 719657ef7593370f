"""A replay store follows its task: nothing is learnt under a class that meant something else."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from shutil import disk_usage

import msgspec
import numpy as np
import pytest

from edge_client.build import open_memories
from edge_client.replay import Kept, ReplayStore
from edge_client.stored import read_stored
from edge_client.stored_task import name_of
from edge_models.tasks import load_task
from edge_protocol.errors import StoreError
from edge_protocol.task import TaskSpec
from tests.edge_client.device_rig import device_config

VEHICLE = load_task("vehicle")


def kept(number: int, target: int = -1) -> Kept:
    """An image of a store."""
    return Kept(f"s-{number}", float(number), np.full((32, 32, 3), number, np.uint8), target)


def changed(**changes: object) -> TaskSpec:
    """The vehicle task with changes."""
    return msgspec.structs.replace(VEHICLE, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        changed(labels=("unclear", *VEHICLE.labels)),
        changed(labels=VEHICLE.labels[::-1]),
        changed(side=("age",)),
        load_task("clinic"),
        load_task("speed"),
    ],
    ids=["a label more", "another order", "side inputs", "clinic", "speed"],
)
def test_a_store_follows_its_task(tmp_path: Path, other: TaskSpec, caplog: pytest.LogCaptureFixture) -> None:
    """Of another task, or of other labels, nothing is learnt; the file waits until its task is back, which is said."""
    path = tmp_path / "r.db"
    store = ReplayStore(path, 1_000_000)
    store.belong_to(VEHICLE)
    store.commission("pack", lambda: [kept(0, 5)])
    store.close()
    with pytest.raises(StoreError, match="holds nothing of task"):
        read_stored(path, other)
    for _ in range(2):
        store = ReplayStore(path, 1_000_000)
        store.belong_to(other)
        assert len(store) == 0
        assert len(read_stored(path, other).names) == 0
        store.close()
    assert len(caplog.messages) == 1
    assert "as it is now, with 0 samples; those of other labels or inputs: in r-" in caplog.text
    store = ReplayStore(path, 1_000_000)
    store.belong_to(other)
    store.commission("pack", lambda: [kept(0, 0)])
    assert len(store) == 1, "the pack is taken for the new task too"
    store.belong_to(VEHICLE)
    assert read_stored(path, VEHICLE).samples.targets.tolist() == [5], "a task that is back finds what it had"
    store.belong_to(other)
    assert len(store) == 1
    store.close()
    assert len([*tmp_path.iterdir()]) == 2


def test_a_device_s_memories_follow_its_task(tmp_path: Path) -> None:
    """The agent opens its store for the task that its configuration names now."""
    config = device_config(tmp_path)
    for name in ("vehicle", "clinic"):
        outbox, store, refused = open_memories(config, load_task(name))
        assert (len(store), refused) == (0, 0)
        store.add([kept(1, 2)])
        store.close()
        outbox.close()


def test_a_store_from_before_tasks_were_noted_is_kept_where_it_fits(tmp_path: Path) -> None:
    """One whose samples have the task's sizes and classes is its own from now on; another is put aside."""
    path = tmp_path / "r.db"
    store = ReplayStore(path, 1_000_000)
    store.add([kept(1, 5), kept(2)])
    store.belong_to(VEHICLE)
    assert len(store) == 2
    store.belong_to(changed(labels=VEHICLE.labels[::-1]))
    assert len(store) == 0
    store.add([kept(1, 5)])
    store._db.execute("drop table task")
    store.belong_to(changed(labels=VEHICLE.labels[:3]))
    assert len(store) == 0
    store.close()


def test_a_power_cut_between_two_stores_loses_neither(tmp_path: Path) -> None:
    """Cut after the one went aside and before the other came back: the next start brings it back."""
    path, clinic = tmp_path / "r.db", load_task("clinic")
    store = ReplayStore(path, 1_000_000)
    for spec, target in ((VEHICLE, 5), (clinic, 2), (VEHICLE, 4)):
        store.belong_to(spec)
        store.add([kept(target, target)])
    store.close()
    path.rename(path.with_stem(f"r-{name_of(VEHICLE)}"))
    for spec, targets in ((VEHICLE, [4, 5]), (clinic, [2]), (VEHICLE, [4, 5])):
        store = ReplayStore(path, 1_000_000)
        store.belong_to(spec)
        store.close()
        assert read_stored(path, spec).samples.targets.tolist() == targets


def test_what_is_put_aside_takes_no_room_from_the_device(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the disk cannot hold both stores at their fullest, the old one is deleted, and that is said."""
    path = tmp_path / "r.db"
    store = ReplayStore(path, disk_usage(tmp_path).free)
    store.belong_to(VEHICLE)
    store.add([kept(1, 5)])
    store.belong_to(load_task("clinic"))
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["r.db"]
    assert "deleted for want of room" in caplog.text


def test_a_store_that_somebody_reads_is_not_put_aside_under_him(tmp_path: Path) -> None:
    """It is an error, the agent keeps samples in memory, and no job learns from the file; the next start mends it."""
    path = tmp_path / "r.db"
    store = ReplayStore(path, 1_000_000)
    store.belong_to(VEHICLE)
    store.add([kept(1, 5)])
    store.close()
    clinic = load_task("clinic")
    reader = sqlite3.connect(path)
    reader.execute("begin")
    reader.execute("select * from samples").fetchall()
    store = ReplayStore(path, 1_000_000)
    store._db.execute("pragma busy_timeout = 1")
    with pytest.raises(StoreError, match="locked"):
        store.belong_to(clinic)
    store.close()
    with pytest.raises(StoreError, match="holds nothing of task"):
        read_stored(path, clinic)
    reader.close()
    store = ReplayStore(path, 1_000_000)
    store.belong_to(clinic)
    assert len(store) == 0
    store.close()
