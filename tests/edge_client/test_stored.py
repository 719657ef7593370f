"""What others read of the replay store: everything, a fair choice, or labelled images bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.replay import Kept, ReplayStore
from edge_client.stored import kept_names, labelled_parts, latest_raw, read_named, read_stored
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import StoreError
from tests.edge_client.test_replay import image

VEHICLE, SPEED, CLINIC = load_task("vehicle"), load_task("speed"), load_task("clinic")


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
    store.add([replace(new, side=np.array([12_345], np.float32))])
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


def test_a_clinic_without_readings_gets_zeros(tmp_path: Path) -> None:
    """Serving answers it so, and one camera frame must not stop all learning."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1, 0, 1.0), replace(image(2, 1, 2.0), side=np.arange(6, dtype=np.float32))])
    np.testing.assert_array_equal(read_stored(tmp_path / "r.db", CLINIC).samples.side, [[0] * 6, [0, 1, 2, 3, 4, 5]])
    store.close()


def test_labelled_samples_come_first_and_unlabelled_ones_fill_up(tmp_path: Path) -> None:
    """A store full of unlabelled frames costs a job no label; what is read stays in order of time."""
    store = ReplayStore(tmp_path / "r.db", 10_000_000)
    store.add(image(i, i % 5 if i % 50 == 0 else -1, float(i)) for i in range(1000))
    kept = read_stored(tmp_path / "r.db", VEHICLE, 100)
    assert len(kept.names) == 100
    assert kept.samples.labelled.sum() == 20
    assert (np.diff(kept.at_s) > 0).all()
    unlabelled = kept.at_s[~kept.samples.labelled]
    assert (unlabelled[0], unlabelled[-1]) == (1.0, 999.0)
    assert np.diff(unlabelled).max() < 16
    assert kept.samples.raw[:, 0, 0, 0].tolist() == [int(at) % 256 for at in kept.at_s]
    assert len(read_stored(tmp_path / "r.db", VEHICLE, 10).names) == 10
    store.close()


def test_every_labelled_image_comes_in_parts_of_one_moment(tmp_path: Path) -> None:
    """Whatever is kept, named or pushed out meanwhile; unlabelled ones are not read."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add(image(i, 2 if i % 3 else -1, float(i)) for i in range(100))
    parts = labelled_parts(tmp_path / "r.db", VEHICLE, 10)
    found = [next(parts)]
    store.add(image(1000 + i, 2, 1000.0 + i) for i in range(400))
    found += parts
    assert [len(part) for part in found] == [10] * 6 + [6]
    assert all((part.targets == 2).all() for part in found)
    store.close()


def test_names_of_what_is_kept_can_be_read(tmp_path: Path) -> None:
    """None of a store that is not there."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1), Kept("x", 0.0, image(2).raw)])
    assert kept_names(tmp_path / "r.db") == {"s-1", "x"}
    assert kept_names(tmp_path / "none.db") == set()
    store.close()


def test_a_few_samples_can_be_read_by_name(tmp_path: Path) -> None:
    """Those that are kept, in the order asked for; none of another task."""
    store = ReplayStore(tmp_path / "r.db", 1_000_000)
    store.add([image(1), image(2), image(3)])
    found = read_named(tmp_path / "r.db", VEHICLE, ["s-3", "gone", "s-1"])
    assert found.names == ["s-3", "s-1"]
    assert found.samples.raw[:, 0, 0, 0].tolist() == [3, 1]
    with pytest.raises(StoreError, match="nothing of task 'speed'"):
        read_named(tmp_path / "r.db", SPEED, ["s-3"])
    store.close()
