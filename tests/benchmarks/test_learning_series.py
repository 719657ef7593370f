"""Cutting and scoring of sensors, the stacked trainer, and the paired test of the learning benchmarks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harness import Options
from benchmarks.learning.muenster import TASK
from benchmarks.learning.series import DeviceSeries, device_series, scores
from benchmarks.learning.series_arms import FAMILIES, Budget
from benchmarks.learning.series_report import measured, sign_flips
from benchmarks.learning.stacked import Stack
from devices.packs import SeriesPack, save_pack
from edge_models.students import build_student

SPEC = TASK.spec
TINY = Budget(rounds=2, steps=3, head=2, central=4, batch=16)


def pack(sensors: int = 2, rows: int = 400) -> SeriesPack:
    """Counts with a daily wave, and an outage of one sensor that reaches into the test."""
    rng = np.random.default_rng(0)
    time_s = np.arange(rows) * 900.0
    wave = 50 + 30 * np.sin(2 * np.pi * time_s[:, None] / 86_400 + np.arange(sensors))
    values = (wave + rng.normal(0, 3, (rows, sensors))).astype(np.float32)
    values[330:360, 0] = np.nan
    return SeriesPack(
        values=values, time_s=time_s, interval_s=900, sensors=tuple(f"s{at}" for at in range(sensors)), unit="cyclists"
    )


@pytest.fixture(scope="module")
def device() -> DeviceSeries:
    """One device with both sensors; its day is its habit."""
    return device_series(pack(), TASK)


@pytest.mark.parametrize("part", ["history", "choice", "test"])
def test_windows_say_where_they_end_and_what_came(device: DeviceSeries, part: str) -> None:
    """Last reading plus target times spread is the truth, and truth is the table's row at the horizon."""
    windows, table = getattr(device, part), pack()
    rebuilt = windows.places.last[:, None] + windows.targets * windows.places.spread[:, None]
    np.testing.assert_allclose(rebuilt, windows.truth, rtol=1e-4)
    row = np.rint(windows.places.time_s / 900).astype(int)
    for at, steps in enumerate(SPEC.horizons):
        inside = windows.inside[:, at]
        expected = table.values[row[inside] + steps, windows.places.sensor[inside]]
        np.testing.assert_allclose(windows.truth[inside, at], expected, rtol=1e-6)
        assert np.isnan(windows.truth[~inside, at]).all()


def test_no_part_reaches_into_the_next(device: DeviceSeries) -> None:
    """History's targets end before the rows of choice, and those before the test's."""
    for part, end in (("history", 280), ("choice", 320), ("test", 400)):
        windows = getattr(device, part)
        row = np.rint(windows.places.time_s / 900).astype(int)
        reached = (row[:, None] + np.array(SPEC.horizons))[np.isfinite(windows.targets)]
        assert reached.max() < end


def test_outages_are_masked_but_for_the_column_that_shows_it(device: DeviceSeries) -> None:
    """A perfect forecast has no error; counting the outage as 0 makes up a large one, at no window beyond the end."""
    windows = device.test
    found = scores(windows, np.nan_to_num(windows.targets), TASK.least)
    np.testing.assert_allclose(found["mae"], 0, atol=1e-3)
    np.testing.assert_allclose(found["mape"], 0, atol=1e-2)
    missing = np.where(windows.inside & np.isnan(windows.truth), np.abs(windows.places.last)[:, None], 0)
    np.testing.assert_allclose(found["mae_unmasked"], missing.sum(0) / windows.inside.sum(0), rtol=1e-3)
    assert min(found["mae_unmasked"]) > 1


def test_scores_by_hand(device: DeviceSeries) -> None:
    """Persistence: mean, root mean square and percentage of the readings' own changes."""
    windows = device.test
    found = scores(windows, np.zeros_like(windows.targets), 10.0)
    change = (windows.places.last[:, None] - windows.truth)[:, 0]
    kept = np.isfinite(change)
    assert found["mae"][0] == pytest.approx(np.abs(change[kept]).mean())
    assert found["rmse"][0] == pytest.approx(np.sqrt((change[kept] ** 2).mean()))
    assert found["mape"][0] == pytest.approx(100 * np.mean(np.abs(change[kept]) / windows.truth[kept, 0]))


def test_a_stacked_device_trains_as_it_would_alone() -> None:
    """The second of two devices ends where torch takes it alone on the same batches: clipping and AdamW mix nothing."""
    rng = np.random.default_rng(0)
    parts = [
        (
            torch.from_numpy(rng.normal(size=(40, 12, 4)).astype(np.float32)),
            torch.from_numpy(size * rng.normal(size=(40, 3)).astype(np.float32)),
        )
        for size in (1, 100)
    ]
    stack = Stack(build_student(SPEC, "small"), 2, seed=5, rate=1e-2, batch=8)
    stack.learn(parts, 3, cycle=False)
    generator = torch.Generator().manual_seed(5)
    alone = Stack(build_student(SPEC, "small"), 1, seed=0, rate=1e-2, batch=8)
    for _ in range(3):
        _, pick = (torch.randint(40, (8,), generator=generator) for _ in range(2))
        alone._descend(parts[1][0][pick][None], parts[1][1][pick][None])
    for name, value in alone.states()[0].items():
        np.testing.assert_allclose(stack.states()[1][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_scores_every_device(family: str) -> None:
    """Two devices, a few steps: finite errors at every horizon, and the same again from the same seed."""
    fleet = [device_series(pack(3).columns(np.array(mine)), TASK) for mine in ([0], [1, 2])]
    found = FAMILIES[family](fleet, 0, TINY)
    for arm in found.values():
        assert [len(device["mae"]) for device in arm] == [3, 3]
        assert np.isfinite([device["mae"] for device in arm]).all()
    assert FAMILIES[family](fleet, 0, TINY) == found


def test_personal_heads_cost_steps_of_the_trunk() -> None:
    """No method takes more steps than another."""
    assert TINY.trunk + TINY.head == TINY.total == 6


def test_sign_flips() -> None:
    """Ten wins of ten have two of 1024 chances; as many wins as losses have no say."""
    assert sign_flips(np.ones(10)) == pytest.approx(2 / 1024, abs=1e-3)
    assert sign_flips(np.array([1.0, -1.0] * 5)) == 1


def test_a_stopped_run_goes_on_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the family whose file is missing is trained again, and the figures are the same."""
    save_pack(tmp_path / f"{TASK.pack}.npz", pack(4), title="Made up")
    monkeypatch.setenv("ROADCAST_DATA", str(tmp_path))
    cache, task = tmp_path / "cache", dataclasses.replace(TASK, devices=4)
    first = measured(Options(quick=True), task=task, cache=cache)
    kept = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) == len(FAMILIES)
    gone = next(cache.glob("*-local.json"))
    gone.unlink()
    again = measured(Options(quick=True), task=task, cache=cache)
    assert again.rows == first.rows
    assert {path.name for path in cache.iterdir() if path.stat().st_mtime_ns != kept[path.name]} == {gone.name}
