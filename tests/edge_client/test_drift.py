"""Drift by hour and condition: told from chance, bounded, kept over restarts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from devices.preprocess import Preprocess
from devices.runners.base import Answer
from devices.sources import Frame
from edge_client.doubts import PERIOD_S, Doubts
from edge_client.drift import MAX_CONDITIONS, Alarm, DriftConfig, DriftDetector, Observation
from edge_client.drift_watch import DriftWatch, read_drift
from edge_client.effects import Drifted
from edge_client.pipelines import Bundle, WholeSample
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol.task import ImageInput
from tests.edge_client.test_inference import Constant

CONFIG = DriftConfig(reference=60)
VEHICLE = load_task("vehicle")


def days(count: int, *, seed: int = 0, worse: float = 0.0, hours: tuple[int, ...] = (3, 12)) -> list[Observation]:
    """An observation a minute in some hours of each day: nights are darker, and may be so many spreads worse."""
    rng = np.random.default_rng(seed)
    usual = {3: 0.4, 12: 0.1}
    return [
        Observation(hour, "road", usual[hour] + 0.02 * (rng.normal() + worse * (hour == 3)))
        for _ in range(count)
        for hour in hours
        for _ in range(60)
    ]


def alarms(detector: DriftDetector, seen: list[Observation]) -> list[Alarm]:
    """What the detector says about a course of observations."""
    return [alarm for each in seen if (alarm := detector.see(each))]


def test_a_night_that_is_darker_than_noon_is_no_drift() -> None:
    """A month of the same two hours, one four times as doubtful as the other: silence, with every seed."""
    for seed in range(5):
        assert alarms(DriftDetector(CONFIG), days(30, seed=seed)) == []


def test_a_night_that_has_got_worse_is_found_within_the_hour() -> None:
    """Two spreads worse at 3, the same at 12: the alarm names the hour, and comes in the first of these nights."""
    detector = DriftDetector(CONFIG)
    assert alarms(detector, days(3)) == []
    (found, *_) = alarms(detector, days(1, seed=1, worse=2.0))
    assert (found.hour, found.condition) == (3, "road")
    assert found.usual == pytest.approx(0.4, abs=0.01)


def test_a_device_that_grows_surer_is_left_alone() -> None:
    """Only worse counts."""
    detector = DriftDetector(CONFIG)
    assert alarms(detector, [*days(3), *days(3, seed=1, worse=-3.0)]) == []


def test_what_it_has_spoken_of_is_commissioned_anew() -> None:
    """One change is told once, not at every minute that follows."""
    detector = DriftDetector(CONFIG)
    assert len(alarms(detector, [*days(3), *days(20, seed=1, worse=2.0)])) == 1


def test_memory_is_bounded_whatever_sources_call_their_scenes() -> None:
    """A thousand conditions share a few cells of 24 hours each."""
    detector = DriftDetector(CONFIG)
    for number in range(1000):
        detector.see(Observation(number, f"scene {number}", 0.1))
    assert len(detector.cells) <= MAX_CONDITIONS + 1
    assert all(len(hours) <= 24 for hours in detector.cells.values())


def test_one_outlier_is_no_drift() -> None:
    """A lorry before the lens for a minute."""
    detector = DriftDetector(CONFIG)
    assert alarms(detector, [*days(2), Observation(3, "road", 1e9), *days(1, seed=2)]) == []


def test_a_minute_is_one_observation() -> None:
    """A mean per minute and condition; the running minute is not told; what is not finite is nothing."""
    doubts = Doubts()
    at_s = 7 * 3600.0
    for second in range(120):
        doubts.see(at_s + second, "day", 0.2 if second < 60 else 0.4)
        doubts.see(at_s + second, "rain", float("nan"))
    assert doubts.drain() == [Observation(7, "day", pytest.approx(0.2))]
    doubts.see(at_s + 2 * PERIOD_S, "day", 0.0)
    assert doubts.drain() == [Observation(7, "day", pytest.approx(0.4))]
    assert doubts.drain() == []


def test_frames_of_the_same_second_add_nothing() -> None:
    """So a camera's loop pays for one frame a second; each scene on its own, and time may jump back with a clip."""
    doubts = Doubts()
    assert doubts.due(100.0, "day")
    doubts.see(100.0, "day", 0.5)
    assert [doubts.due(at_s, "day") for at_s in (100.9, 101.0, 99.0)] == [False, True, True]
    assert doubts.due(100.5, "night")


def test_sources_that_never_stop_naming_scenes_share_one_mean() -> None:
    """The number of running means is bounded."""
    doubts = Doubts()
    for number in range(100):
        doubts.see(float(number), f"scene {number}", 0.5)
    assert max(len(doubts._sums), len(doubts._last)) <= MAX_CONDITIONS + 2


def feed(doubts: Doubts, seen: list[Observation]) -> None:
    """Say a course of observations, each a minute of its hour."""
    for number, each in enumerate(seen):
        doubts.see(86_400.0 * number + 3600 * each.hour, each.condition, each.doubt)
    doubts.see(86_400.0 * len(seen), "road", 0.0)


def test_it_goes_on_after_a_restart_and_begins_anew_with_another_release(tmp_path: Path) -> None:
    """Half the reference before, half after; an alarm is an event and is remembered, also when the release is gone."""
    path, doubts = tmp_path / "drift.json", Doubts()
    watch = DriftWatch(path, CONFIG, doubts)
    watch.serving(4)
    feed(doubts, days(1, hours=(3,))[:40])
    assert watch.poll(0.0) == []
    watch.save()
    again = DriftWatch(path, CONFIG, doubts)
    again.serving(4)
    feed(doubts, days(2, seed=1, hours=(3,)))
    feed(doubts, days(1, seed=2, worse=3.0, hours=(3,)))
    assert again.poll(1.0) == [Drifted(3, "road")]
    kept = read_drift(path)
    assert (kept.release, kept.total, again.total) == (4, 1, 1)
    assert kept.alarms[0].hour == 3
    again.serving(4)
    again.save()
    assert read_drift(path).cells.keys() == {"road"}
    again.serving(5)
    again.poll(2.0)
    assert read_drift(path).cells == {}
    assert read_drift(path).total == 1


class Unsure(Constant):
    """A student whose shared head is as sure as it is told to be."""

    margin = 3.0

    def infer(self, x: np.ndarray) -> Answer:
        """Logits with one best output, by the margin."""
        logits = np.zeros((len(x), 6), np.float32)
        logits[:, 1] = self.margin
        return Answer(np.ones((len(x), 64), np.float32), logits)


def test_a_fleet_whose_rounds_refit_the_head_every_day_still_hears_of_drift(tmp_path: Path) -> None:
    """Another personal head each day, always sure of itself; the shared one grows unsure, and that is told."""
    assert isinstance(VEHICLE.input, ImageInput)
    seen, student, rng = Seen(1e9), Unsure(), np.random.default_rng(0)
    tally = Tally(task="vehicle", source="road", interval_s=1e9, slot_s=None, emit=lambda _: None)
    pipeline = WholeSample(VEHICLE, Preprocess(VEHICLE.input), tally, seen)
    watch = DriftWatch(tmp_path / "drift.json", CONFIG, seen.doubts)
    watch.serving(1)
    told = []
    for day in range(6):
        refitted = HeadWeights(np.full((6, 64), day, np.float32), 9 * np.eye(6, dtype=np.float32)[day % 6])
        for minute in range(60):
            student.margin = (3.0 if day < 4 else 0.5) + 0.1 * rng.normal()
            frame = Frame(
                sample="s", at_s=86_400 * day + 3600 * 3 + 60.0 * minute, image=np.zeros((32, 32, 3), np.uint8)
            )
            pipeline.step(frame, Bundle(1, student, refitted), 0.0)
        told.append(len(watch.poll(float(day))))
    assert told == [0, 0, 0, 0, 1, 0]


def test_doubts_of_heads_that_rounds_refitted_are_begun_anew(tmp_path: Path) -> None:
    """A file of an earlier version keeps its alarms; its cells were of other heads than the shared one."""
    path = tmp_path / "drift.json"
    path.write_bytes(b'{"release": 4, "total": 2, "alarms": [], "cells": {"road": {"3": {"count": 60, "mean": 0.01}}}}')
    kept = read_drift(path)
    assert (kept.release, kept.total, kept.cells) == (4, 2, {})


def test_a_damaged_file_costs_a_commissioning_and_nothing_else(tmp_path: Path) -> None:
    """It is begun anew; one that cannot be written is left."""
    path = tmp_path / "drift.json"
    path.write_bytes(b'{"release": "x"}')
    assert msgspec.json.encode(read_drift(path)) == msgspec.json.encode(read_drift(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    watch = DriftWatch(tmp_path / "file" / "drift.json", CONFIG, Doubts())
    watch.save()
    assert watch.total == 0
