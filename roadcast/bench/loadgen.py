"""MLPerf LoadGen issues a run's queries in place of our own loop; owns no model and no statistics.

LoadGen draws which sample a query asks for and is not heeded: queries are prepared in a pool and asked in turn, as our
loop does. Latency is LoadGen's own, from its trace; what it holds beyond the steps, LoadGen's way from C++ into Python
and back, and in ``server`` the time that a query waited, is the stage `WAY`. Offline LoadGen gives all samples at once
and times them as one: they are asked in batches, each timed by our clock.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from devices.latency.load import Clock, Plan, Scenario, Step, Trace
from devices.latency.traces import read_loadgen
from edge_protocol.errors import ConfigError, DataError, NotReadyError, StoreError

WAY: Final = "loadgen"
TRACE: Final = "mlperf_log_trace.json"
_SAMPLES: Final = 32
"""That LoadGen is told there are."""
_KINDS: Final[Mapping[Scenario, str]] = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "offline": "Offline",
    "server": "Server",
}
_TRIES: Final = 3
_MARGIN: Final = 2
"""LoadGen makes its queries beforehand: enough for queries that take so many times less than the quickest tried."""
LoadGen = Any
"""The module ``mlperf_loadgen``, which has no types."""


def load_loadgen(plan: Plan) -> LoadGen:
    """Import LoadGen, if it can do what is planned.

    Raises:
        ConfigError: LoadGen has no such queries.
        NotReadyError: it is not installed.
    """
    if plan.scenario in ("single-stream", "server") and plan.batch != 1:
        raise ConfigError(f"LoadGen's {plan.scenario} has one sample in a query, not {plan.batch}: leave out --samples")
    try:
        return importlib.import_module("mlperf_loadgen")
    except ModuleNotFoundError as error:
        raise NotReadyError(
            "MLPerf LoadGen is not installed here; run: pip install 'roadcast[bench]', or leave out --driver"
        ) from error


def note() -> str:
    """What is to be known of the stage `WAY`."""
    return f"queries issued by MLPerf LoadGen {version('mlcommons-loadgen')}: its way in and out, and waiting for it"


def drive(steps: Sequence[tuple[str, Step]], plan: Plan, clock: Clock, logs: Path | None = None) -> Trace:
    """Have LoadGen issue queries as the plan says; what `devices.latency.load.measure` does itself.

    Args:
        steps: names and functions that a query goes through. One that fails ends the run when LoadGen has run out of
            queries, at the latest after the plan's time: LoadGen cannot be stopped, and no query is asked any more.
        plan: how much; offline, as many samples as LoadGen expects to take so long.
        clock: of the steps; LoadGen has its own.
        logs: folder for LoadGen's own files, which it makes or writes over; they are not kept without one.

    Raises:
        ConfigError, NotReadyError: as `load_loadgen` says.
        DataError: LoadGen's trace is damaged.
        StoreError: there is none: the disk refuses.
    """
    loadgen = load_loadgen(plan)
    with ExitStack() as opened:
        folder = _folder(logs or Path(opened.enter_context(tempfile.TemporaryDirectory())))
        settings, log = _settings(loadgen, plan, _quickest(steps, clock)), loadgen.LogSettings()
        log.enable_trace, log.log_output.copy_summary_to_stdout, log.log_output.outdir = True, False, str(folder)
        trace, failed = Trace(stages={WAY: [], **{name: [] for name, _ in steps}}), list[BaseException]()
        system = loadgen.ConstructSUT(_issue(loadgen, steps, plan, clock, trace, failed), lambda: None)
        library = loadgen.ConstructQSL(_SAMPLES, _SAMPLES, lambda _: None, lambda _: None)
        try:
            loadgen.StartTestWithLogSettings(system, library, settings, log)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(system)
        if failed:
            raise failed[0]
        return trace if plan.scenario == "offline" else _whole(trace, folder)


def _issue(
    loadgen: LoadGen,
    steps: Sequence[tuple[str, Step]],
    plan: Plan,
    clock: Clock,
    trace: Trace,
    failed: list[BaseException],
) -> Callable[[Sequence[Any]], None]:
    """What LoadGen calls; an error that left it would leave LoadGen's threads with memory that is gone."""
    wall, cpu, batch = clock.wall, clock.cpu, plan.batch
    complete, response = loadgen.QuerySamplesComplete, loadgen.QuerySampleResponse
    columns = [(step, trace.stages[name].append) for name, step in steps]
    query, spent, begun, end = 0, cpu(), wall(), 0

    def ask(samples: Sequence[Any]) -> None:
        nonlocal query, spent, end
        try:
            if not failed:
                value: Any = query
                start = mark = wall()
                for step, keep in columns:
                    value = step(value)
                    end = wall()
                    keep(end - mark)
                    mark = end
                complete([response(sample.id, 0, 0) for sample in samples])
                now, done = cpu(), wall()
                trace.cpu.append(now - spent)
                trace.stages[WAY].append(done - end)
                trace.starts.append(start - begun)
                trace.ends.append(done - begun)
                query, spent = query + 1, now
                return
        except BaseException as error:  # noqa: BLE001 - it is raised when LoadGen has come to its end
            failed.append(error)
        complete([response(sample.id, 0, 0) for sample in samples])

    def ask_in_batches(samples: Sequence[Any]) -> None:
        for at in range(0, len(samples), batch):
            ask(samples[at : at + batch])

    return ask_in_batches if plan.scenario == "offline" else ask


def _settings(loadgen: LoadGen, plan: Plan, quickest: int) -> Any:  # noqa: ANN401 - LoadGen's
    settings = loadgen.TestSettings()
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.scenario = getattr(loadgen.TestScenario, _KINDS[plan.scenario])
    settings.min_duration_ms = round(plan.seconds * 1e3)
    settings.min_query_count = plan.queries * (plan.batch if plan.scenario == "offline" else 1)
    settings.single_stream_expected_latency_ns = max(quickest // _MARGIN, 1)
    settings.multi_stream_expected_latency_ns = max(quickest // _MARGIN, 1)
    settings.multi_stream_samples_per_query = plan.batch
    settings.offline_expected_qps = plan.batch * 1e9 / max(quickest, 1)
    settings.server_target_qps = plan.rate_hz or 1.0
    settings.schedule_rng_seed = plan.seed
    return settings


def _quickest(steps: Sequence[tuple[str, Step]], clock: Clock) -> int:
    """Nanoseconds of the quickest of a few queries."""
    found = []
    for query in range(_TRIES):
        value: Any = query
        begun = clock.wall()
        for _, step in steps:
            value = step(value)
        found.append(clock.wall() - begun)
    return min(found)


def _whole(trace: Trace, folder: Path) -> Trace:
    """The steps' own times within LoadGen's."""
    try:
        theirs = read_loadgen((folder / TRACE).read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{folder / TRACE}: LoadGen left no trace: {error.strerror}; give another folder") from error
    if len(theirs.starts) != len(trace.starts):
        raise DataError(
            f"{folder / TRACE}: LoadGen issued {len(trace.starts)} queries and wrote down {len(theirs.starts)}: is the "
            "disk full? free space, or give another folder"
        )
    stages = dict(trace.stages)
    own = [sum(times) for times in zip(*(times for name, times in stages.items() if name != WAY), strict=True)]
    stages[WAY] = [whole - part for whole, part in zip(theirs.latencies, own, strict=True)]
    return Trace(theirs.starts, theirs.ends, trace.cpu, stages)


def _folder(place: Path) -> Path:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{place}: cannot be made: {error.strerror}; give another folder") from error
    return place
