"""The result of one benchmark run as a JSON document: figures with bounds, facts, remarks; owns no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from devices.latency.bounds import PERCENTILES, Milliseconds, Percentile, percentile_of
from devices.latency.load import METRIC, Plan, Scenario, Trace
from devices.latency.power import Draw
from devices.latency.sensors import Moment, Sensed
from devices.latency.steady import Steady, find_steady
from edge_protocol.errors import DataError, StoreError

STAGES = ("capture", "decode", "preprocess", "infer", "head", "publish")
"""Of a frame's way through a device, in order."""
CONTENDED = 1.2
"""Wall over CPU time from which something else had the processor."""
MOVED = 0.02
"""Relative change of the clock that is remarked upon."""


Nanoseconds = Annotated[int, Meta(ge=0, le=10**18)]


class Summary(msgspec.Struct, frozen=True):
    """Times of one stage, or of whole queries, in milliseconds.

    Attributes:
        count: queries.
        percentiles: 50, 90, 95, 97, 99 and 99.9, each with its bound.
    """

    count: Annotated[int, Meta(ge=1)]
    mean_ms: Milliseconds
    min_ms: Milliseconds
    max_ms: Milliseconds
    percentiles: tuple[Percentile, ...]

    def __post_init__(self) -> None:
        if tuple(found.percentile for found in self.percentiles) != PERCENTILES:
            raise ValueError(f"`percentiles` are not those of {', '.join(f'{p:g}' for p in PERCENTILES)} in order")

    def at(self, percentile: float) -> Percentile:
        """One of the percentiles."""
        return next(found for found in self.percentiles if found.percentile == percentile)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, and on what.

    Attributes:
        model: name for people.
        sha256: of the template or ONNX file.
        weights_sha256: of the weights payload; empty when the file holds its weights.
        runner: such as ``ort``.
        providers: share of graph nodes per provider that ran them, proven by a profiled run.
        precision: such as ``fp32``.
        threads: that one inference may use.
        board, software: for people.
        cores: of the board.
    """

    model: str
    sha256: str
    weights_sha256: str
    runner: str
    providers: dict[str, float]
    precision: str
    threads: int
    board: str
    software: str
    cores: int


class Raw(msgspec.Struct, frozen=True):
    """Nanoseconds per measured query, from the beginning of the run; at least one, and as many of one as the other."""

    starts: list[Nanoseconds]
    latencies: Annotated[list[Nanoseconds], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if len(self.starts) != len(self.latencies):
            raise ValueError(f"{len(self.starts)} `starts` and {len(self.latencies)} `latencies`")


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="format", tag="roadcast-bench-1"):
    """One run.

    Attributes:
        scenario, samples: how queries were issued, and how many samples one holds.
        warm: what of the run counts.
        latency: whole queries, end to end over the stages.
        stages: each alone.
        beside: what happened within a stage, or meanwhile in another process, and is not added to the latency.
        notes: what is to be known of a stage, such as where its frames came from.
        unmeasured: stages of a frame's way that were not measured, and why.
        cpu: CPU time of the process per query.
        samples_per_s: throughput.
        load_ms: from files to a loaded model.
        first_ms: its first query.
        peak_mb: of resident memory; None: not measured.
        peak_since_start: whether that peak may be older than the run.
        sensed: clocks, heat and energy.
        moments: the board over time; empty: it has no sensor that is watched.
        power_mode: of a Jetson; None: not measured.
        energy_mj_per_sample: of the board, or of all CPU packages (RAPL), idle power included; None: not measured.
        draw: what the board drew, and before the run; None: not measured, or not asked for.
        remarks: why a figure is to be taken with care.
        raw: every query that counts.
    """

    subject: Subject
    scenario: Scenario
    samples: Annotated[int, Meta(ge=1)]
    warm: Steady
    latency: Summary
    stages: dict[str, Summary]
    cpu: Summary
    samples_per_s: float
    load_ms: float
    first_ms: float
    peak_mb: float | None
    peak_since_start: bool
    sensed: Sensed
    energy_mj_per_sample: float | None
    remarks: tuple[str, ...]
    raw: Raw
    draw: Draw | None = None
    beside: dict[str, Summary] = {}
    notes: dict[str, str] = {}
    unmeasured: dict[str, str] = {}
    moments: tuple[Moment, ...] = ()
    power_mode: str | None = None

    def __post_init__(self) -> None:
        latency = self.latency
        if min(latency.mean_ms, latency.min_ms, *(found.ms for found in latency.percentiles)) < 0:
            raise ValueError("`latency` holds a time below 0")

    @property
    def watts(self) -> float | None:
        """Mean draw of the board, else of its CPU packages; None: neither was measured."""
        if self.draw is not None:
            return self.draw.watts
        return None if self.energy_mj_per_sample is None else self.energy_mj_per_sample * self.samples_per_s / 1e3


def summarise(nanoseconds: Sequence[int]) -> Summary:
    """Summarise times, at least one; none is left out."""
    ordered = sorted(nanoseconds)
    return Summary(
        len(ordered),
        sum(ordered) / len(ordered) / 1e6,
        ordered[0] / 1e6,
        ordered[-1] / 1e6,
        tuple(percentile_of(ordered, percentile) for percentile in PERCENTILES),
    )


def result_of(
    trace: Trace,
    plan: Plan,
    subject: Subject,
    sensed: Sensed,
    draw: Draw | None = None,
    notes: Mapping[str, str] = {},
    **measured: Any,  # noqa: ANN401 - the rest of `Result`
) -> Result:
    """Put a run's result together.

    Args:
        trace: what was measured.
        plan: how.
        subject: what, and on what.
        sensed: between beginning and end.
        draw: see `Result`.
        notes: what is to be known of a stage, and of one that has no times: why.
        measured: the rest of `Result`.
    """
    latencies = trace.latencies
    warm = find_steady(latencies)
    kept = slice(warm.begins, None)
    latency, cpu = summarise(latencies[kept]), summarise(trace.cpu[kept])
    queries = len(latencies)
    span_s = (trace.ends[-1] - trace.starts[warm.begins]) / 1e9
    found = {*trace.stages, *trace.beside}
    energy = None if sensed.energy_j is None else sensed.energy_j * 1e3 / (queries * plan.batch)
    if draw is not None:
        energy = draw.mj_per_sample
    return Result(
        subject=subject,
        scenario=plan.scenario,
        samples=plan.batch,
        warm=warm,
        latency=latency,
        stages={name: summarise(times[kept]) for name, times in trace.stages.items()},
        beside={name: summarise(times[kept]) for name, times in trace.beside.items()},
        cpu=cpu,
        samples_per_s=latency.count * plan.batch / span_s if span_s else 0.0,
        sensed=sensed,
        energy_mj_per_sample=energy,
        draw=draw,
        notes={stage: note for stage, note in notes.items() if stage in found},
        unmeasured={stage: notes.get(stage, "not asked for") for stage in STAGES if stage not in found},
        remarks=tuple(_remarks(plan, warm, latency, cpu, sensed)),
        raw=Raw(trace.starts[kept], latencies[kept]),
        **measured,
    )


def _remarks(plan: Plan, warm: Steady, latency: Summary, cpu: Summary, sensed: Sensed) -> list[str]:
    found = []
    if not warm.steady:
        moved = "too few queries to tell" if warm.drift is None else f"drift {warm.drift:+.1%}"
        found.append(f"not steady ({moved}): run longer, or find what changes")
    ratio = latency.at(50).ms / cpu.at(50).ms if cpu.at(50).ms else 0.0
    if plan.scenario != "server" and ratio > CONTENDED:
        found.append(f"contended: wall p50 is {ratio:.2f} times CPU p50, so something else had the processor")
    metric = METRIC[plan.scenario]
    if metric is not None and latency.at(metric).bound_ms is None:
        needs = latency.at(metric).needs
        found.append(f"too short: p{metric:g} needs {needs} queries for a bound, {latency.count} count")
    if sensed.throttled:
        alerts = f" ({', '.join(sensed.slowed_by)})" if sensed.slowed_by else ""
        found.append(f"throttled{alerts}: slowed by heat or over-current {sensed.throttle_events or 0} times")
    if sensed.clock_moved is not None and sensed.clock_moved > MOVED:
        found.append(f"clock moved by {sensed.clock_moved:.1%}")
    if sensed.pinned is False:
        found.append("clocks are not pinned: this is the board as deployed, under its governor")
    return found


def write_result(path: Path, result: msgspec.Struct) -> None:
    """Write the document.

    Raises:
        StoreError: the disk refuses.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=0))
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}; give another file") from error


def read_result(path: Path) -> Result:
    """Read the document of a run.

    Raises:
        DataError: there is none, or it is not one.
    """
    found = read_document(path, Result)
    assert isinstance(found, Result)
    return found


def read_document(path: Path, kind: Any) -> object:  # noqa: ANN401 - a type, or several: `Result | Soak`
    """Read a document of one of the kinds that `kind` says.

    Raises:
        DataError: there is none, or it is not one.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, ValueError) as error:
        if _of_device(path):
            raise DataError(
                f"{path}: what a device said of itself, a few percentiles without its queries: it is not compared or "
                "drawn. See 'roadcast server status', or measure there with 'bench run --ssh'"
            ) from error
        raise DataError(f"{path}: not a result of 'roadcast bench run --json': {error}; measure again") from error


class _OfDevice(msgspec.Struct):
    """What sets the document of ``bench run --device`` apart."""

    device: str
    task: str
    values: dict[str, float]


def _of_device(path: Path) -> bool:
    try:
        msgspec.json.decode(path.read_bytes(), type=_OfDevice)
    except (OSError, msgspec.DecodeError, ValueError):
        return False
    return True
