"""What our runner adds to bare ONNX Runtime, and our own timing to a bare timing loop; CPU time, one thread.

Runner: every shipped student, one sample, `OrtRunner.infer` against `InferenceSession.run` of the same session,
interleaved in blocks. Timing: a step that does nothing, through `devices.latency.load.measure` with its record of wall
and CPU time per query, against a loop that only reads the wall clock before and after and keeps the difference.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np

from benchmarks.harness import Options, Outcome, Spread, Target, interleaved, run, spread
from devices.latency.load import Plan, SystemClock, measure
from devices.runners.ort_runner import OrtRunner
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.task import TIERS
from export import build_artifact

MOST_RELATIVE = 0.02
MOST_US = 5.0
MOST_TIMING_US = 2.0
BLOCK = 50
QUERIES = 2000


def measure_all(options: Options) -> Outcome:
    """Overhead of the runner over bare ONNX Runtime at batch 1, and of the measuring over a bare timing loop."""
    repeats = 120 if options.quick else 400
    rows: list[tuple[object, ...]] = [("student", "bare us", "runner us", "added us", "added %")]
    figures: dict[str, object] = {}
    relative: list[float] = []
    absolute: list[float] = []
    for name in ("vehicle", "speed"):
        for tier in TIERS:
            bare, ours, added = _runner(name, tier, repeats)
            share = added.median / bare
            (relative if name == "vehicle" else absolute).append(share if name == "vehicle" else added.median)
            rows.append((f"{name} {tier}", bare, ours, added.median, 100 * share))
            figures[f"{name}_{tier}"] = {"bare_us": bare, "added_us": added, "added_share": share}
    timed = timing(repeats // 4)
    rows.append(("timing of an empty query", "-", "-", timed.median, "-"))
    targets = (
        Target("runner over bare, vehicle students, share of CPU time", max(relative), MOST_RELATIVE),
        Target("runner over bare, speed students, us", max(absolute), MOST_US),
        Target("measuring over a bare timing loop, us per query", timed.median, MOST_TIMING_US),
    )
    headline = (
        f"the runner adds {100 * max(relative):.2g} % at most to a vehicle student and {max(absolute):.2g} us to a "
        f"speed student; measuring a query adds {timed} us"
    )
    return Outcome(headline, {**figures, "timing_us": timed}, targets, rows)


def _runner(name: str, tier: str, repeats: int) -> tuple[float, float, Spread]:
    """Microseconds of CPU time per query, bare and ours, and their difference."""
    spec = load_task(name)
    x = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
    built = build_artifact(spec, tier, build_student(spec, tier), x)  # type: ignore[arg-type]  # one of TIERS
    one = x[:1]
    gc.freeze()  # as the agent does: what the collector does to torch's objects is not the runner's cost
    with OrtRunner(built.template, built.weights) as runner:
        session = runner._session  # noqa: SLF001 - the bare loop is what the runner wraps

        def bare() -> None:
            for _ in range(BLOCK):
                session.run(["features", "logits"], {"input": one})

        def ours() -> None:
            for _ in range(BLOCK):
                runner.infer(one)

        return _difference({"bare": bare, "ours": ours}, repeats, BLOCK)


def timing(repeats: int) -> Spread:
    """Microseconds of CPU time that `measure` adds to a bare timing loop, per query."""
    plan, clock = Plan(queries=QUERIES, seconds=0), SystemClock()

    def nothing(_: object) -> None:
        return None

    def bare() -> list[int]:
        times = []
        for query in range(QUERIES):
            begun = time.perf_counter_ns()
            nothing(query)
            times.append(time.perf_counter_ns() - begun)
        return times

    return _difference({"bare": bare, "ours": lambda: measure([("infer", nothing)], plan, clock)}, repeats, QUERIES)[2]


def _difference(cases: dict[str, Callable[[], object]], repeats: int, count: int) -> tuple[float, float, Spread]:
    seconds = interleaved(cases, repeats=repeats, warm_up=4, clock=time.process_time)
    bare, ours = ([1e6 * one / count for one in seconds[name]] for name in ("bare", "ours"))
    added = spread([b - a for a, b in zip(bare, ours, strict=True)])
    return float(np.median(bare)), float(np.median(ours)), added


if __name__ == "__main__":
    raise SystemExit(run(measure_all))
