"""Samples to calibrate on and to judge on are apart, labelled, and as the student takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.packs import ImagePack, SeriesPack, save_pack
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec
from roadcast.data.samples import CALIBRATED, samples_for

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")


def images(split: np.ndarray | None = None) -> ImagePack:
    """Forty images whose brightness is their number; ten are unlabelled, every other one is of a strange class."""
    raw = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
    labels = np.where(np.arange(40) < 30, np.arange(40) % 2, -1)
    return ImagePack.of(raw, labels=labels, classes=("car", "boat"), split=split)


def brightness(x: np.ndarray) -> set[int]:
    """Which images these are."""
    return {round(float((one[0, 0, 0] * 0.165 + 0.52) * 255)) for one in x}


def test_a_packs_own_split_is_kept(tmp_path: Path) -> None:
    """Images of the test split are judged on and never calibrated on; strange and missing labels are left out."""
    save_pack(tmp_path / "p.npz", images((np.arange(40) >= 20).astype(np.uint8)), title="images")
    calibration, (x, held) = samples_for(VEHICLE, tmp_path / "p.npz")
    assert brightness(calibration) == set(range(0, 20, 2))
    assert brightness(x) == set(range(20, 30, 2))
    assert set(held.targets.tolist()) == {VEHICLE.labels.index("car")}
    assert x.shape == (5, 3, 32, 32)


def test_a_pack_without_a_split_is_cut(tmp_path: Path) -> None:
    """The first seven tenths are calibrated on."""
    save_pack(tmp_path / "p.npz", images(), title="images")
    calibration, (x, _) = samples_for(VEHICLE, tmp_path / "p.npz")
    assert brightness(calibration) == set(range(0, 20, 2))
    assert brightness(x) == set(range(20, 30, 2))


def test_series_are_cut_by_time(tmp_path: Path) -> None:
    """What is judged on comes after what is calibrated on."""
    rng = np.random.default_rng(0)
    time_s = 1.7e9 + 300.0 * np.arange(400, dtype=np.float64)
    values = rng.normal(50, 5, (400, 2)).astype(np.float32)
    pack = SeriesPack(values=values, time_s=time_s, interval_s=300.0, sensors=("a", "b"), unit="mph")
    save_pack(tmp_path / "p.npz", pack, title="series")
    calibration, (x, held) = samples_for(SPEED, tmp_path / "p.npz")
    assert calibration.shape == (CALIBRATED, *SPEED.input.shape)
    assert len(x) == len(held) > 100
    assert held.labelled.all()


@pytest.mark.parametrize("spec", [VEHICLE, SPEED], ids=["vehicle", "speed"])
def test_without_a_pack_they_are_simulated(spec: TaskSpec) -> None:
    """Both halves are there and of the task's shape."""
    calibration, (x, _) = samples_for(spec, None)
    assert calibration.shape[1:] == x.shape[1:] == spec.input.shape


def test_a_pack_that_cannot_serve_is_named(tmp_path: Path) -> None:
    """Not there, of the other kind, without a label that the task knows."""
    with pytest.raises(DataError):
        samples_for(VEHICLE, tmp_path / "none.npz")
    save_pack(tmp_path / "p.npz", images(), title="images")
    with pytest.raises(DataError, match="needs a series"):
        samples_for(SPEED, tmp_path / "p.npz")
    boats = ImagePack.of(images().images, labels=np.ones(40, np.int64), classes=("car", "boat"))
    save_pack(tmp_path / "b.npz", boats, title="boats")
    with pytest.raises(DataError, match="both need some"):
        samples_for(VEHICLE, tmp_path / "b.npz")
