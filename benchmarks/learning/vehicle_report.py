"""What the runs of `vehicle` come to: the table, the targets, and how sure each difference is.

Owns no run. Two questions are asked of a difference, for one answer is not the other's: would other images have shown
it too (random signs over the images of the test; each counts by its mean over seeds and students), and is it there in
every seed, that is, on every fleet dealt out. A target that compares shared models is met when both say yes. Crops of
one vehicle are not independent, so p is somewhat small; and three seeds allow no p of their own (0.25 at best).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Spread, Target, spread
from benchmarks.learning.series_report import sign_flips
from benchmarks.learning.vehicle_arms import Found

OURS, CONTROL, CEILING = "feddistill", "self", "central"
TEACHERS = ("anchors", "self", "mean", "feddf", "dsfl", "scarlet", "fedmd", "fedproto", "fedtgp")
"""Methods that send no weights."""
WEIGHTS = ("fedavg", "fedprox")
OWN = ("local", "fedmd", "fedper", "fedrep", "ditto")
"""Methods whose personal students are rivals on a device's own test; so is the shared head alone."""
CLOSED, FEWER = 0.5, 300.0
"""Targets: share of the gap closed, and bytes up of FedAvg in those of ours."""
SIGNIFICANT = 0.05
Runs = Mapping[str, Sequence[Found]]


@dataclass(frozen=True)
class Verdict:
    """How our shared model stands to a rival's after the last round.

    Attributes:
        gaps: points ahead in each seed.
        p: two-sided, over the images of the test.
    """

    gaps: Sequence[float]
    p: float

    @property
    def sure(self) -> bool:
        """Whether we are ahead in every seed, and by more than the choice of images explains."""
        return min(self.gaps) > 0 and self.p <= SIGNIFICANT

    def __str__(self) -> str:
        return f"worst of {len(self.gaps)} seeds {min(self.gaps):+.1f}, p {self.p:.2g} over test images"


def verdicts_of(runs: Runs) -> dict[str, Verdict]:
    """Our method against each other one; nothing without ours."""
    return {name: _verdict(runs[OURS], found) for name, found in runs.items() if OURS in runs and name != OURS}


def _verdict(ours: Sequence[Found], theirs: Sequence[Found]) -> Verdict:
    gaps = [100 * (mine["curve"][-1] - other["curve"][-1]) for mine, other in zip(ours, theirs, strict=True)]
    mine, other = (np.mean([found["right"] for found in each], axis=0) for each in (ours, theirs))
    return Verdict(gaps, sign_flips(mine - other))


def closed_of(runs: Runs) -> Spread:
    """Share of the gap from the control to the ceiling that ours closes, over seeds."""
    lasts = (
        [found["curve"][-1] for found in three]
        for three in zip(*(runs[name] for name in (OURS, CONTROL, CEILING)), strict=True)
    )
    return spread([float((last - low) / (high - low)) for last, low, high in lasts])


def targets_of(runs: Runs, verdicts: Mapping[str, Verdict]) -> list[Target]:
    """What is judged, of the methods that ran; a figure that is not sure is NaN and misses."""
    control, closed = verdicts[CONTROL], closed_of(runs).median
    share = closed if control.sure else float("nan")
    targets = [Target(f"share of the gap closed, {closed:.2f} ({control})", share, CLOSED, at_most=False)]
    for name in (*TEACHERS, *WEIGHTS):
        if name in runs:
            verdict, mean = verdicts[name], float(np.mean(verdicts[name].gaps))
            ahead = mean if verdict.sure else float("nan")
            targets.append(Target(f"points above {name}, {mean:+.1f} ({verdict})", ahead, 0.0, at_most=False))
    for name in WEIGHTS:
        if name in runs:
            ratio = _mean(runs, name, "up") / _mean(runs, OURS, "up")
            targets.append(Target(f"bytes up of {name} in ours", ratio, FEWER, at_most=False))
    return [*targets, *_own_targets(runs)]


def _own_targets(runs: Runs) -> Iterator[Target]:
    """At least as good on own tests as each rival: means over seeds of the mean and of the worst device."""
    rivals = {name: _own(runs, name, "chosen") for name in OWN if name in runs} | {
        "shared only": _own(runs, OURS, "shared")
    }
    mean, worst = _own(runs, OURS, "chosen")
    for name, (theirs, theirs_worst) in rivals.items():
        yield Target(f"own test, mean, points above {name}", 100 * (mean - theirs), 0.0, at_most=False)
        ahead = 100 * (worst - theirs_worst)
        yield Target(f"own test, worst device, points above {name}", ahead, 0.0, at_most=False)


def _mean(runs: Runs, name: str, key: str) -> float:
    return float(np.mean([found[key] for found in runs[name]]))


def _own(runs: Runs, name: str, head: str) -> tuple[float, float]:
    """Mean and worst device under a head, as means over seeds; NaN without."""
    tables = [found["own"].get(head, [float("nan")]) for found in runs[name]]
    if not all(np.isfinite(table).any() for table in tables):
        return float("nan"), float("nan")
    return float(np.mean([np.nanmean(table) for table in tables])), float(np.mean([np.nanmin(t) for t in tables]))


def rows_of(runs: Runs, verdicts: Mapping[str, Verdict]) -> list[list[object]]:
    """The table: percentages, bytes of a device in a round and before the first, CPU seconds with all measuring."""
    heads = ("shared", "personal", "chosen")
    rows: list[list[object]] = [["method", "after 1 round", "shared model", "p (images)", "ours ahead, worst seed"]]
    rows[0] += [*(f"own {head}: mean, worst" for head in heads), "bytes up", "bytes down", "down once", "CPU s"]
    for name, found in runs.items():
        own = [_own(runs, name, head) for head in heads]
        row: list[object] = [name, f"{100 * np.mean([one['curve'][0] for one in found]):.1f}"]
        row.append(str(spread([round(100 * one["curve"][-1], 1) for one in found])))
        verdict = verdicts.get(name)
        row += [f"{verdict.p:.2g}", f"{min(verdict.gaps):+.1f}"] if verdict else ["", ""]
        row += ["" if np.isnan(mean) else f"{100 * mean:.1f}, {100 * worst:.1f}" for mean, worst in own]
        row += [f"{_mean(runs, name, key):,.0f}" for key in ("up", "down", "once")]
        rows.append([*row, f"{_mean(runs, name, 'cpu_s'):.0f}"])
    return rows
