"""The simulated roadside: deterministic, with the shapes and the physics that it claims."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from devices.packs import ImagePack, SeriesPack, card_path, open_pack
from devices.sources import open_source
from edge_protocol.errors import StoreError
from roadcast.simulated import CLIP, SPEED_PACK, VEHICLE_PACK, simulate_roadside
from roadcast.simulated.conditions import CONDITIONS
from roadcast.simulated.road import Scene, busy_scene, write_clip
from roadcast.simulated.traffic import Roads, simulate_speeds
from roadcast.simulated.vehicles import SHAPES, render_vehicles


def test_vehicles_are_deterministic_and_varied() -> None:
    """The same seed gives the same crops; no two crops are alike, and a fifth is test data."""
    pack = render_vehicles(10, seed=3)
    again, other = render_vehicles(10, seed=3), render_vehicles(10, seed=4)
    np.testing.assert_array_equal(pack.images, again.images)
    assert (pack.images != other.images).mean() > 0.9
    assert pack.images.shape == (60, 64, 64, 3)
    assert pack.classes == ("bike", "car", "juggernaut", "minibus", "pickup", "truck") == tuple(SHAPES)
    assert np.bincount(pack.labels).tolist() == [10] * 6
    assert np.bincount(pack.labels[pack.split == 1]).tolist() == [2] * 6
    assert len(np.unique(pack.images.reshape(60, -1), axis=0)) == 60
    assert render_vehicles(1, size=32).images.shape == (6, 32, 32, 3)


def test_vehicle_classes_can_be_told_apart() -> None:
    """Nearest class mean on coarse edges beats chance by far and is far from perfect: a task, not a giveaway."""

    def features(pack: ImagePack) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        grey = pack.images.mean(axis=3)
        edges = np.abs(np.diff(grey, axis=1))[:, :60, :60] + np.abs(np.diff(grey, axis=2))[:, :60, :60]
        return edges.reshape(len(grey), 10, 6, 10, 6).mean(axis=(2, 4)).reshape(len(grey), -1)

    known, asked = render_vehicles(60, seed=0), render_vehicles(40, seed=1)
    means = np.stack([features(known)[known.labels == label].mean(axis=0) for label in range(6)])
    distance = np.linalg.norm(features(asked)[:, None] - means[None], axis=2)
    accuracy = (distance.argmin(axis=1) == asked.labels).mean()
    assert 0.35 < accuracy < 0.95


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions_are_pure_and_seeded(name: str) -> None:
    """A condition leaves its input alone, keeps the shape, and gives the same pictures for the same seed."""
    images = render_vehicles(2).images
    before = images.copy()
    changed = CONDITIONS[name](images, np.random.default_rng(5))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(changed, CONDITIONS[name](images, np.random.default_rng(5)))
    assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
    assert (name == "clean") == bool((changed == images).all())
    assert CONDITIONS[name](images[:0], np.random.default_rng(5)).shape == (0, 64, 64, 3)


def test_conditions_do_what_they_are_named_for() -> None:
    """Night is dark, fog is pale, warm is red, blur and low resolution lose detail."""
    images = render_vehicles(4).images
    out = {name: change(images, np.random.default_rng(0)).astype(float) for name, change in CONDITIONS.items()}
    detail = {name: np.abs(np.diff(pictures, axis=2)).mean() for name, pictures in out.items()}
    assert out["night"].mean() < 0.6 * out["clean"].mean()
    assert out["fog"].std() < 0.6 * out["clean"].std()
    assert (out["warm"][..., 0] - out["warm"][..., 2]).mean() > 30
    assert detail["blur"] < 0.5 * detail["clean"]
    assert detail["low_resolution"] < 0.7 * detail["clean"]
    assert np.ptp(out["auto_exposure"].mean(axis=(1, 2, 3))) > 20


def test_speeds_have_jams_weekends_and_outages() -> None:
    """A week of speeds shows free flow at night, jams on weekdays, missing readings, and is deterministic."""
    pack = simulate_speeds(seed=1)
    assert pack.values.shape == (2016, 28)
    assert (pack.unit, pack.interval_s) == ("mph", 300.0)
    np.testing.assert_array_equal(pack.values, simulate_speeds(seed=1).values)
    hour = pack.time_s % 86_400 / 3600
    night, evening = pack.values[(hour > 1) & (hour < 4)], pack.values[(hour > 16.5) & (hour < 18.5)]
    assert np.nanmedian(night) > 50
    assert np.nanmean(evening < 40) > 0.03
    assert np.nanmean(night < 40) < np.nanmean(evening < 40) / 3
    assert 0.005 < np.isnan(pack.values).mean() < 0.15
    assert np.nanmin(pack.values) >= 1
    assert pack.distance is not None
    assert np.isfinite(pack.distance).sum() == 4 * 7 * 7
    np.testing.assert_array_equal(pack.distance, pack.distance.T)


def test_cells_conserve_vehicles_and_respect_capacity() -> None:
    """What enters stays or leaves, no cell exceeds its capacity, and a closed cell jams upstream only."""
    shape = (1, 12)
    road = Roads(np.full(shape, 60.0), np.full(shape, 12.0), np.full(shape, 4000.0), np.full(shape, 400.0))
    density, left, factor = np.zeros(shape), 0.0, np.ones(shape)
    factor[0, 6] = 0.2
    hours = 15 / 3600
    for _ in range(400):
        before = density
        density, out = road.step(density, np.array([3000.0]), factor)
        entered = (density.sum() - before.sum()) * road.cell_miles + out[0, -1] * hours
        assert -1e-9 <= entered <= 3000 * hours + 1e-9
        assert (out <= 4000.0 + 1e-9).all()
        assert (density >= -1e-9).all()
        assert (density <= 400 + 1e-9).all()
        left += out[0, -1] * hours
    assert left > 0
    assert density[0, 5] > 200
    assert density[0, 8] < 40


def test_the_roadside_is_ordinary_packs(tmp_path: Path) -> None:
    """What is written opens like any data, says that it is simulated, and is the same for the same seed."""
    files = simulate_roadside(tmp_path / "a", seed=2, per_class=5, days=1)
    assert [file.name for file in files] == [VEHICLE_PACK, SPEED_PACK, CLIP]
    vehicles, speeds = open_pack(files[0]), open_pack(files[1])
    assert isinstance(vehicles, ImagePack)
    assert isinstance(speeds, SeriesPack)
    assert (len(vehicles), len(speeds)) == (30, 288)
    cards = [json.loads(card_path(file).read_text()) for file in files]
    assert all(card["title"].startswith("simulated") for card in cards)
    assert sum(cards[2]["truth"].values()) == 12
    again = simulate_roadside(tmp_path / "b", seed=2, per_class=5, days=1)
    assert files[0].read_bytes() == again[0].read_bytes()
    assert files[1].read_bytes() == again[1].read_bytes()
    with open_source(f"file://{files[2]}", name="road", rate_hz=float("inf")) as source:
        frame = source.read(20)
    assert frame is not None
    assert frame.image is not None
    assert frame.image.shape == (240, 320, 3)


def test_roadside_that_cannot_be_written(tmp_path: Path) -> None:
    """A disk that refuses is a store error, for packs and clips."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        simulate_roadside(tmp_path / "file", per_class=1, days=1)
    with pytest.raises(StoreError, match="a video cannot be written here"):
        write_clip(tmp_path / "nope" / "a.mp4", Scene(()), 1)
    card_path(tmp_path / CLIP).mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        simulate_roadside(tmp_path, per_class=1, days=1)


def test_busy_scene_is_countable() -> None:
    """No vehicle enters behind another in the same lane: a person can tell them apart."""
    passings = busy_scene(seed=7).passings
    assert len(passings) == 12
    assert all(abs(a.x - b.x) > 60 for a, b in pairwise(passings))
