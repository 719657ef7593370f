"""Our times of a query against those of MLPerf LoadGen, same student, same machine; and what each costs a query.

Blocks of queries go through `devices.latency.load.measure` and through LoadGen (`roadcast.bench.loadgen.drive`, as in
``bench run --driver loadgen``) in turn, in one process and one thread:
single stream with one sample in a query, multi-stream with eight. Percentiles are those of all blocks of a side; a
statement about one is made where both sides' bounds (99 % confidence, `devices.latency.bounds`) are no further from the
estimate than the agreement that is asked for.

LoadGen's clock runs on from its C++ into Python, through the query and back. An empty query finds that way warm in the
caches and shows 1.4 us of it; after an inference it is cold: on a busy machine 3 us at the median and 9 at the 90th
percentile, which is no part of what the system under test takes. So each query that LoadGen issues is also timed alone,
inside of that way, by the clock of our side. What is judged is one query's own time, as our loop and as LoadGen issue
it; LoadGen's own figures stand beside it, and so does what its way added to each query.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.harness import Options, Outcome, Target, run
from benchmarks.latency.runners import MOST_TIMING_US, timing
from devices.latency.bounds import Percentile, percentile_of
from devices.latency.load import SAMPLES, Plan, Scenario, SystemClock
from devices.latency.load import measure as measured
from devices.runners.base import F4
from devices.runners.ort_runner import OrtRunner
from edge_models.students import build_student
from edge_models.tasks import load_task
from export import build_artifact
from roadcast.bench.loadgen import WAY, drive

AGREES = 0.03
JUDGED = (50.0, 90.0, 99.0)
BLOCK_NS, POOL = 150_000_000, 32
Query = Callable[[int], object]


def measure(options: Options) -> Outcome:
    """Compare p50, p90 and p99 of one student as we and as LoadGen measure them, and the cost of measuring."""
    blocks = 20 if options.quick else 150
    spec = load_task("vehicle")
    pool = np.random.default_rng(0).normal(size=(POOL, 8, *spec.input.shape)).astype(np.float32)
    built = build_artifact(spec, "base", build_student(spec, "base"), pool[0, :4])
    names = ("ours us", "bound", "under LoadGen us", "bound", "ours/under LoadGen", "LoadGen's us", "ours/LoadGen's")
    rows: list[tuple[object, ...]] = [("vehicle base", "", *names)]
    figures: dict[str, object] = {}
    targets: list[Target] = []
    ways: dict[str, list[float]] = {}
    gc.freeze()  # as the agent does: what the collector does to torch's objects is nobody's latency
    with OrtRunner(built.template, built.weights) as runner:
        for scenario in ("single-stream", "multi-stream"):
            asked = np.ascontiguousarray(pool[:, : SAMPLES[scenario]])

            def query(number: int, asked: F4 = asked) -> object:
                return runner.infer(asked[number % POOL])

            found, ratios = both(query, scenario, blocks), list[float]()
            for at in JUDGED:
                ours, own, theirs, way = (percentile_of(times, at) for times in found)
                ratio, judged = ours.ms / own.ms, _sharp(ours) and _sharp(own)
                says = f"{ratio:.4f}" if judged else f"{ratio:.4f}, but the bounds are too wide to say so"
                whole = (theirs.ms * 1e3, ours.ms / theirs.ms)
                rows.append((scenario, f"p{at:g}", *_microseconds(ours), *_microseconds(own), says, *whole))
                said = {"ours": ours, "own": own, "loadgen": theirs, "way": way}
                figures[f"{scenario} p{at:g}"] = {
                    **{f"{name}_us": one.ms * 1e3 for name, one in said.items()},
                    "ratio": ratio,
                    "queries": len(found.ours),
                    "judged": judged,
                }
                ratios.append(ratio)
                if judged:
                    targets.append(Target(f"{scenario}: p{at:g} of the two differs, share", abs(ratio - 1), AGREES))
            figures[scenario] = ratios
            ways[scenario] = _way(found)
    ways["empty query"] = _way(both(lambda number: number, "single-stream", max(blocks // 8, 2)))
    added = timing(max(blocks // 2, 20))
    headline = (
        f"our loop over the same query under LoadGen, p50, p90, p99: one sample {_three(figures['single-stream'])}, "
        f"eight {_three(figures['multi-stream'])}; {len(targets)} of 6 may be judged; LoadGen's way adds "
        f"{_two(ways['single-stream'])} us (p50, p90), {_two(ways['empty query'])} to an empty one; "
        f"measuring adds {added} us"
    )
    targets.append(Target("measuring over a bare timing loop, us per query", added.median, MOST_TIMING_US))
    return Outcome(headline, {**figures, "loadgen_adds_us": ways, "timing_us": added}, targets, rows)


class Times(NamedTuple):
    """Nanoseconds of every query, rising.

    Attributes:
        ours: as our loop measured them.
        own: of those that LoadGen issued in between, by our clock.
        theirs: of the same, by LoadGen's.
        way: what each of LoadGen's times holds beyond the query's own.
    """

    ours: list[int]
    own: list[int]
    theirs: list[int]
    way: list[int]


def both(query: Query, scenario: Scenario, blocks: int) -> Times:
    """Measure blocks of queries ourselves and under LoadGen, in turn; the first of each is left out."""
    clock = SystemClock()
    begun = clock.wall()
    query(0), query(1)
    queries = min(max(2 * BLOCK_NS // (clock.wall() - begun), 100), 1000)
    plan = Plan(scenario=scenario, queries=queries, seconds=0)
    found = Times([], [], [], [])
    for block in range(-1, blocks):
        ours, theirs = (issue([("infer", query)], plan, clock) for issue in (measured, drive))
        if block >= 0:
            own = theirs.stages["infer"], theirs.latencies, theirs.stages[WAY]
            for times, one in zip(found, (ours.latencies, *own), strict=True):
                times.extend(one)
    return Times(*(sorted(times) for times in found))


def _way(found: Times) -> list[float]:
    """Microseconds that LoadGen's way adds, p50, p90, p99."""
    return [percentile_of(found.way, at).ms * 1e3 for at in JUDGED]


def _sharp(found: Percentile) -> bool:
    return found.bound_ms is not None and found.bound_ms <= (1 + AGREES) * found.ms


def _three(ratios: object) -> str:
    assert isinstance(ratios, list)
    return ", ".join(f"{ratio:.3f}" for ratio in ratios)


def _two(way: list[float]) -> str:
    return f"{way[0]:.1f}, {way[1]:.1f}"


def _microseconds(found: Percentile) -> tuple[object, object]:
    return found.ms * 1e3, "-" if found.bound_ms is None else found.bound_ms * 1e3


if __name__ == "__main__":
    raise SystemExit(run(measure))
