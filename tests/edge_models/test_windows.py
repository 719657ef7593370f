"""Windows: missing is never zero, targets come from measured readings only, live and packed windows agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_models.scales import Scale
from edge_models.tasks import load_task
from edge_models.windows import LiveWindows, cut_windows
from edge_protocol.errors import DataError

SPEC = load_task("speed")
STEPS, AHEAD, INTERVAL = 12, 12, 300.0
HORIZONS = np.array([3, 6, 12])
START = 1_600_000_200.0


def times(rows: int) -> np.ndarray:
    """Return evenly spaced times of `rows` rows."""
    return START + INTERVAL * np.arange(rows)


def series(seed: int, rows: int, sensors: int, missing: float) -> np.ndarray:
    """Draw readings around 50, some of them missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(50, 5, (rows, sensors))
    values[rng.random(values.shape) < missing] = np.nan
    return values


cases = {
    "seed": st.integers(0, 10_000),
    "rows": st.integers(STEPS, 40),
    "sensors": st.integers(1, 3),
    "missing": st.floats(0, 0.9),
}


@settings(max_examples=30)
@given(**cases)
def test_every_window_is_what_the_readings_say(seed: int, rows: int, sensors: int, missing: float) -> None:
    """Flags, values and targets of each window are recomputed from the readings, one by one."""
    values = series(seed, rows, sensors, missing)
    scale = Scale.fit(values)
    samples = cut_windows(values, times(rows), SPEC, scale)
    expected = iter(range(len(samples)))
    for end in range(STEPS - 1, rows):
        for sensor in range(sensors):
            window = values[end - STEPS + 1 : end + 1, sensor]
            known = np.isfinite(window) & np.isfinite(scale.std[sensor])
            if not known.any():
                continue
            at = next(expected)
            normal = (window - scale.mean[sensor]) / scale.std[sensor]
            assert (samples.raw[at, :, 1] == known).all()
            assert (samples.raw[at, ~known, 0] == 0).all()
            assert np.allclose(samples.raw[at, known, 0], normal[known], atol=1e-4)
            ahead = [values[end + h, sensor] if end + h < rows else np.nan for h in HORIZONS]
            change = (np.array(ahead) - window[known][-1]) / scale.std[sensor]
            assert np.allclose(samples.targets[at], change, equal_nan=True, atol=1e-3)
    assert next(expected, None) is None


@settings(max_examples=20)
@given(**cases)
def test_live_windows_mature_into_the_packed_ones(seed: int, rows: int, sensors: int, missing: float) -> None:
    """A device that saw the readings one by one learns from the same samples as one that got them in a pack."""
    values = series(seed, rows, sensors, missing)
    scale = Scale.fit(values)
    live = LiveWindows(SPEC, sensors, scale)
    matured = [sample for row, at_s in zip(values, times(rows), strict=True) for sample in live.push(row, at_s)[1]]
    lead = np.full((STEPS - 1, sensors), np.nan)
    early = START - INTERVAL * np.arange(STEPS - 1, 0, -1)
    packed = cut_windows(np.concatenate([lead, values]), np.concatenate([early, times(rows)]), SPEC, scale)
    packed = packed.take(packed.labelled)
    assert len(matured) <= len(packed)
    for at, (window, target, _, pair, _) in enumerate(matured):
        assert np.allclose(window, packed.raw[at], atol=1e-5)
        assert np.allclose(target, packed.targets[at], equal_nan=True, atol=1e-5)
        assert np.allclose(pair, packed.scale[at])


def test_the_newest_live_window_ends_with_what_was_pushed() -> None:
    """The window to forecast from holds the newest reading last, and the time of day turns once a day."""
    live = LiveWindows(SPEC, 1, Scale(np.array([50.0]), np.array([10.0])))
    windows, matured = live.push([60.0], 21_600.0)
    assert windows.shape == (1, STEPS, 4)
    assert windows.dtype == np.float32
    assert not matured
    assert windows[0, -1].tolist() == pytest.approx([1, 1, 1, 0], abs=1e-6)
    assert (windows[0, :-1, :2] == 0).all()


def test_intervals_left_out_are_missing_readings() -> None:
    """After a gap the window shows the gap as not measured, and past windows mature all the same."""
    live = LiveWindows(SPEC, 1, Scale(np.array([50.0]), np.array([10.0])))
    live.push([50.0], START)
    windows, matured = live.push([70.0], START + 6 * INTERVAL)
    assert windows[0, :, 1].tolist() == [0] * 5 + [1] + [0] * 5 + [1]
    assert not matured
    _, matured = live.push([np.nan], START + 12 * INTERVAL)
    assert not matured
    _, matured = live.push([np.nan], START + 13 * INTERVAL)
    assert [each.target.tolist()[1] for each in matured] == [2.0]


def test_a_gap_longer_than_the_memory_starts_afresh() -> None:
    """After a week without readings nothing old is in the window."""
    live = LiveWindows(SPEC, 1, Scale(np.array([50.0]), np.array([10.0])))
    live.push([50.0], START)
    windows, _ = live.push([60.0], START + 2016 * INTERVAL)
    assert windows[0, :, 1].sum() == 1


def test_late_and_repeated_readings_change_nothing_measured() -> None:
    """A repeated reading fills only what was missing in its interval; one of an older interval is dropped."""
    live = LiveWindows(SPEC, 2, Scale(np.array([50.0, 50.0]), np.array([10.0, 10.0])))
    live.push([60.0, np.nan], START)
    windows, _ = live.push([99.0, 40.0], START)
    assert windows[:, -1, 0].tolist() == [1.0, -1.0]
    later, _ = live.push([99.0, 99.0], START - 5 * INTERVAL)
    assert (later == windows).all()


def test_without_history_the_scale_is_learned_before_anything_counts_as_measured() -> None:
    """A sensor has no measured window until it was measured as often as a window is long; then it has."""
    live = LiveWindows(SPEC, 1)
    for row in range(STEPS - 1):
        windows, _ = live.push([50.0 + row], START + row * INTERVAL)
        assert not windows[..., 1].any()
    windows, _ = live.push([80.0], START + STEPS * INTERVAL)
    assert windows[..., 1].any()
    assert np.isfinite(live.scale.std).all()


def test_readings_of_another_group_are_refused() -> None:
    """A row with another number of sensors is an error, not a broadcast."""
    with pytest.raises(DataError, match="2 sensors"):
        LiveWindows(SPEC, 2).push([1.0], START)


def test_an_absurd_reading_is_missing_in_windows_and_targets() -> None:
    """Neither a logger's 65535 nor an infinite reading is a value or a truth, live or in a pack."""
    values = series(3, 40, 1, 0.0)
    values[20], values[30] = 65535.0, np.inf
    holed = np.where(np.isin(np.arange(40), (20, 30))[:, None], np.nan, values)
    scale = Scale.fit(holed)
    wild, missing = cut_windows(values, times(40), SPEC, scale), cut_windows(holed, times(40), SPEC, scale)
    assert (wild.raw == missing.raw).all()
    assert np.array_equal(wild.targets, missing.targets, equal_nan=True)
    live, also = LiveWindows(SPEC, 1, scale), LiveWindows(SPEC, 1, scale)
    for row, hole, at_s in zip(values, holed, times(40), strict=True):
        assert (live.push(row, at_s)[0] == also.push(hole, at_s)[0]).all()


def test_what_was_read_before_is_the_scale_that_readings_begin_with() -> None:
    """The first reading after a start is measured, and of sensors that the scale does not know as well."""
    past = series(4, 300, 2, 0.1)
    live = LiveWindows(SPEC, 2, past=past)
    windows, _ = live.push([52.0, np.nan], START)
    assert windows[:, -1, 1].tolist() == [1, 0]
    known = Scale(np.array([50.0, np.nan]), np.array([10.0, np.nan]))
    both = LiveWindows(SPEC, 2, known, past=past)
    both.push([52.0, 48.0], START)
    assert both.scale.mean[0] == 50
    assert both.scale.std == pytest.approx([10, live.scale.std[1]], rel=0.01)


def test_a_sensor_that_was_never_measured_gives_no_sample() -> None:
    """Without any reading there is no scale, no window and no zero."""
    values = np.stack([np.full(30, np.nan), np.linspace(40, 60, 30)], axis=1)
    samples = cut_windows(values, times(30), SPEC)
    assert len(samples) == 30 - STEPS + 1
    assert np.isfinite(samples.raw).all()
    assert np.isfinite(samples.scale).all()


def test_rows_left_out_of_a_pack_are_missing() -> None:
    """A series with a hole gives the windows of the same series with NaN in the hole."""
    values = series(1, 40, 2, 0.1)
    kept = np.delete(np.arange(40), [15, 16, 17])
    holed = values.copy()
    holed[15:18] = np.nan
    scale = Scale.fit(holed)
    short, full = cut_windows(values[kept], times(40)[kept], SPEC, scale), cut_windows(holed, times(40), SPEC, scale)
    assert (short.raw == full.raw).all()
    assert np.array_equal(short.targets, full.targets, equal_nan=True)


def test_stride_thins_windows_out() -> None:
    """Every third window in time is kept, for all sensors."""
    values = series(2, 40, 2, 0.0)
    every, third = cut_windows(values, times(40), SPEC), cut_windows(values, times(40), SPEC, stride=3)
    assert (third.raw == every.raw.reshape(-1, 2, STEPS, 4)[::3].reshape(-1, STEPS, 4)).all()


@pytest.mark.parametrize(
    ("values", "time_s", "message"),
    [
        (np.zeros(30), times(30), "needs values"),
        (np.zeros((30, 1)), times(29), "needs values"),
        (np.zeros((0, 1)), times(0), "needs values"),
        (np.zeros((30, 1)), times(30)[::-1], "increase"),
        (np.zeros((30, 1)), np.full(30, np.nan), "increase"),
        (np.zeros((30, 1)), times(30) * 3, "resample"),
        (np.zeros((30, 1)), np.append(times(29), START + 1e9), "time stamp"),
    ],
)
def test_series_that_do_not_fit_are_refused(values: np.ndarray, time_s: np.ndarray, message: str) -> None:
    """Wrong shapes, wrong order, wrong interval and a wild time stamp each say what is wrong."""
    with pytest.raises(DataError, match=message):
        cut_windows(values, time_s, SPEC)


def test_scale_and_task_must_fit_the_series() -> None:
    """Another group's scale and an image task are refused."""
    with pytest.raises(DataError, match="scale is of 1"):
        cut_windows(np.zeros((30, 2)), times(30), SPEC, Scale(np.zeros(1), np.ones(1)))
    with pytest.raises(DataError, match="takes images"):
        cut_windows(np.zeros((30, 2)), times(30), load_task("vehicle"))


def test_real_week_gives_windows(real_data: Path) -> None:
    """A real week of speeds gives one window per sensor and row, and persistence errs by a few miles per hour."""
    with np.load(real_data / "metrla_week_speed.npz") as pack:
        values = pack["speed"][:200, :20]
    samples = cut_windows(values, times(len(values)), SPEC)
    assert len(samples) == (200 - STEPS + 1) * 20
    error = np.nanmean(np.abs(samples.targets) * samples.scale[:, 1:])
    assert 1 < error < 10
