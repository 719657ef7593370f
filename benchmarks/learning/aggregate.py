"""What making a teacher costs: 1,000 devices, 2,000 proxies, 10 classes, against one NumPy pass over the same bytes.

The pass is what any rule must do at least: go once through every device's odds and add them up. CPU seconds of both,
interleaved in one run, and the peak of memory beyond the reports themselves.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Sequence

import numpy as np

from benchmarks.harness import Options, Outcome, Target, interleaved, ratios, run
from broker_server.distil_job import DistilSettings
from broker_server.strategies import HiddenAnchors, Opinion, make_strategy
from edge_protocol.arrays import pack
from edge_protocol.ids import DeviceId
from edge_protocol.votes import CONFIDENCE, ODDS, ClassVotes

DEVICES, SAMPLES, CLASSES, ANCHORS = 1000, 2000, 10, 60
COST = 10.0
"""CPU seconds of a teacher in those of the pass, at most."""


def ballots(devices: int, rng: np.random.Generator) -> list[ClassVotes]:
    """Random votes of the full width: every device speaks of every sample, the most that a rule has to read."""
    held = pack(np.ones(CLASSES, np.uint8))

    def levels(low: int, high: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return rng.integers(low, high, SAMPLES).astype(np.uint8)

    return [
        ClassVotes(pack(levels(0, CLASSES)), pack(levels(0, len(CONFIDENCE))), pack(levels(1, len(ODDS))), held)
        for _ in range(devices)
    ]


def measured(options: Options) -> Outcome:
    """What making a teacher of 1,000 reports costs, in passes over their odds; --quick takes 200 reports."""
    devices, repeats = (200, 3) if options.quick else (DEVICES, 25)
    rng = np.random.default_rng(0)
    reports = ballots(devices, rng)
    shared = Opinion(rng.dirichlet(np.ones(CLASSES), SAMPLES).astype(np.float32))
    truth = rng.integers(0, CLASSES, ANCHORS)
    anchors = HiddenAnchors(np.arange(ANCHORS), truth)
    odds = rng.random((devices, SAMPLES, CLASSES), np.float32)

    def teacher() -> None:
        strategy = make_strategy(DistilSettings(), shared, anchors)
        for at, votes in enumerate(reports):
            strategy.add(DeviceId(f"camera-{at:04d}"), votes)
        strategy.teacher()

    def one_pass() -> None:
        odds.sum(0)

    seconds = interleaved({"teacher": teacher, "pass": one_pass}, repeats=repeats, warm_up=1, clock=time.process_time)
    cost = ratios(seconds["teacher"], seconds["pass"])
    tracemalloc.start()
    teacher()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    size = devices * SAMPLES * 3 / 1e6
    rows: list[Sequence[object]] = [
        ["", ""],
        *([f"{name}, CPU s", f"{np.median(values):.4f}"] for name, values in seconds.items()),
        ["peak memory beyond the reports, MB", f"{peak:.1f}"],
        ["reports, MB", f"{size:.1f}"],
    ]
    figures = {"cost": cost, "seconds": seconds, "peak_mb": peak, "reports_mb": size}
    return Outcome(
        f"a teacher of {devices} reports costs {cost} passes over their odds; {peak:.0f} MB beside their {size:.0f}",
        figures,
        [Target("CPU seconds in those of one pass", cost.median, COST)],
        rows,
    )


if __name__ == "__main__":
    raise SystemExit(run(measured))
