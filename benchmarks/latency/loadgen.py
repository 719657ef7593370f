"""Our times of a query against those of MLPerf LoadGen, same student, same machine; and what each costs a query.

Blocks of queries go through `devices.latency.load.measure` and through LoadGen in turn, in one process and one thread:
single stream with one sample in a query, multi-stream with eight. Percentiles are those of all blocks of a side; a
statement about one is made where both sides' bounds (99 % confidence, `devices.latency.bounds`) are no further from the
estimate than the agreement that is asked for. LoadGen's times hold its way from C++ into Python and back, of which an
empty query shows the larger part.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import mlperf_loadgen
import numpy as np

from benchmarks.harness import Options, Outcome, Target, run
from benchmarks.latency.runners import MOST_TIMING_US, timing
from devices.latency.bounds import Percentile, percentile_of
from devices.latency.load import SAMPLES, Plan, Scenario, SystemClock
from devices.latency.load import measure as measured
from devices.latency.traces import read_loadgen
from devices.runners.base import F4
from devices.runners.ort_runner import OrtRunner
from edge_models.students import build_student
from edge_models.tasks import load_task
from export import build_artifact

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
    rows: list[tuple[object, ...]] = [("vehicle base", "", "ours us", "bound", "LoadGen us", "bound", "ours/LoadGen")]
    figures: dict[str, object] = {}
    targets: list[Target] = []
    gc.freeze()  # as the agent does: what the collector does to torch's objects is nobody's latency
    with OrtRunner(built.template, built.weights) as runner:
        for scenario in ("single-stream", "multi-stream"):
            asked = np.ascontiguousarray(pool[:, : SAMPLES[scenario]])

            def query(number: int, asked: F4 = asked) -> object:
                return runner.infer(asked[number % POOL])

            found, ratios = both(query, scenario, blocks), list[float]()
            for at in JUDGED:
                ours, theirs = (percentile_of(times, at) for times in found)
                ratio, judged = ours.ms / theirs.ms, _sharp(ours) and _sharp(theirs)
                says = f"{ratio:.4f}" if judged else f"{ratio:.4f}, but the bounds are too wide to say so"
                rows.append((scenario, f"p{at:g}", *_microseconds(ours), *_microseconds(theirs), says))
                figures[f"{scenario} p{at:g}"] = {**_plain(ours, theirs), "queries": len(found[0]), "judged": judged}
                ratios.append(ratio)
                if judged:
                    targets.append(Target(f"{scenario}: p{at:g} of the two differs, share", abs(ratio - 1), AGREES))
            figures[scenario] = ratios
    ours, theirs = (percentile_of(times, 50) for times in both(lambda number: number, "single-stream", blocks // 4))
    rows.append(("empty query", "p50", *_microseconds(ours), *_microseconds(theirs), "-"))
    added = timing(max(blocks // 2, 20))
    headline = (
        f"ours over LoadGen, p50, p90, p99: one sample {_three(figures['single-stream'])}, eight "
        f"{_three(figures['multi-stream'])}; {len(targets)} of 6 may be judged; measuring adds {added} us to a query"
    )
    targets.append(Target("measuring over a bare timing loop, us per query", added.median, MOST_TIMING_US))
    return Outcome(headline, {**figures, "empty": _plain(ours, theirs), "timing_us": added}, targets, rows)


def both(query: Query, scenario: Scenario, blocks: int) -> tuple[list[int], list[int]]:
    """Nanoseconds of every query, rising: as we measured them, and as LoadGen did in between."""
    clock = SystemClock()
    begun = clock.wall()
    query(0), query(1)
    queries = min(max(2 * BLOCK_NS // (clock.wall() - begun), 100), 1000)
    plan = Plan(scenario=scenario, queries=queries, seconds=0)
    ours: list[int] = []
    theirs: list[int] = []
    for block in range(-1, blocks):
        found = measured([("infer", query)], plan, clock).latencies, under_loadgen(query, scenario, queries)
        if block >= 0:
            ours += found[0]
            theirs += found[1]
    return sorted(ours), sorted(theirs)


def under_loadgen(query: Query, scenario: Scenario, queries: int) -> list[int]:
    """Nanoseconds of each query of a run of LoadGen, read from its trace.

    Args:
        query: given the number of the query's first sample.
        scenario: ``single-stream`` or ``multi-stream``.
        queries: as many.
    """
    settings = mlperf_loadgen.TestSettings()
    kinds = mlperf_loadgen.TestScenario
    settings.scenario = kinds.SingleStream if scenario == "single-stream" else kinds.MultiStream
    settings.multi_stream_samples_per_query = SAMPLES[scenario]
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count, settings.max_query_count = 0, queries, queries
    log = mlperf_loadgen.LogSettings()
    log.enable_trace, log.log_output.copy_summary_to_stdout = True, False

    def issue(samples: Sequence[mlperf_loadgen.QuerySample]) -> None:
        query(samples[0].index)
        mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(one.id, 0, 0) for one in samples])

    system = mlperf_loadgen.ConstructSUT(issue, lambda: None)
    library = mlperf_loadgen.ConstructQSL(POOL, POOL, lambda _: None, lambda _: None)
    try:
        with tempfile.TemporaryDirectory() as folder:
            log.log_output.outdir = folder
            mlperf_loadgen.StartTestWithLogSettings(system, library, settings, log)
            return read_loadgen((Path(folder) / "mlperf_log_trace.json").read_text(encoding="utf-8")).latencies
    finally:
        mlperf_loadgen.DestroyQSL(library)
        mlperf_loadgen.DestroySUT(system)


def _sharp(found: Percentile) -> bool:
    return found.bound_ms is not None and found.bound_ms <= (1 + AGREES) * found.ms


def _plain(ours: Percentile, theirs: Percentile) -> dict[str, float]:
    return {"ours_us": ours.ms * 1e3, "loadgen_us": theirs.ms * 1e3, "ratio": ours.ms / theirs.ms}


def _three(ratios: object) -> str:
    assert isinstance(ratios, list)
    return ", ".join(f"{ratio:.3f}" for ratio in ratios)


def _microseconds(found: Percentile) -> tuple[object, object]:
    return found.ms * 1e3, "-" if found.bound_ms is None else found.bound_ms * 1e3


if __name__ == "__main__":
    raise SystemExit(run(measure))
