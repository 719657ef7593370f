"""Traces of others: MLPerf LoadGen's ``mlperf_log_trace.json`` and ``trtexec --exportTimes``; owns no figure.

LoadGen writes Chrome trace events, one a line, and some of its lines are not JSON (``"key":""num_errors""`` in 6.0), so
the file is read line by line and only for its samples. Latency counts from the time a query was due.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from devices.latency.load import Trace
from edge_protocol.errors import DataError

_OPEN, _CLOSE = "b", "e"
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Microseconds = Annotated[float, Meta(ge=-1e17, le=1e17)]


class _Arguments(msgspec.Struct):
    """What LoadGen says of a sample: its latency in nanoseconds."""

    query_seq: int
    complete_ns: Annotated[int, Meta(ge=0, le=10**18)]
    sample_idx: int = 0


class _Event(msgspec.Struct):
    """A trace event that opens a sample; ``ts`` in microseconds."""

    name: str
    ph: str
    ts: Microseconds = 0.0
    args: _Arguments | None = None


def _trtexecs(name: str) -> str:
    return name.replace("_ms", "Ms")


class _Inference(msgspec.Struct, rename=_trtexecs):
    """One entry of ``--exportTimes``: milliseconds since its run began."""

    startH2d_ms: Milliseconds  # noqa: N815 - trtexec's name, but for its ending
    endH2d_ms: Milliseconds  # noqa: N815
    startCompute_ms: Milliseconds  # noqa: N815
    endCompute_ms: Milliseconds  # noqa: N815
    startD2h_ms: Milliseconds  # noqa: N815
    endD2h_ms: Milliseconds  # noqa: N815

    def __post_init__(self) -> None:
        names = self.__struct_fields__
        for begun, ended in zip(names[::2], names[1::2], strict=True):
            if getattr(self, ended) < getattr(self, begun):
                raise ValueError(f"`{_trtexecs(ended)}` is before `{_trtexecs(begun)}`")


def read_loadgen(text: str) -> Trace:
    """Read the samples of a LoadGen trace; one entry per query, whose latency is that of its last sample.

    Raises:
        DataError: there is no sample in it, or one that cannot be read.
    """
    decoder = msgspec.json.Decoder(_Event)
    found: dict[int, tuple[int, int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if '"name":"Sample"' not in line:
            continue
        try:
            event = decoder.decode(line.strip().rstrip(","))
        except msgspec.DecodeError as error:
            raise DataError(f"LoadGen trace, line {number}: {error}; is the file whole?") from error
        if event.ph == _OPEN and event.args is not None:
            start, query = round(event.ts * 1000), event.args.query_seq
            first, last = found.get(query, (start, start))
            found[query] = (min(first, start), max(last, start + event.args.complete_ns))
    if not found:
        raise DataError("no samples in this trace: is it mlperf_log_trace.json, and was tracing on?")
    spans = [found[query] for query in sorted(found)]
    begun = min(start for start, _ in spans)
    starts, ends = [start - begun for start, _ in spans], [end - begun for _, end in spans]
    return Trace(starts, ends, [0] * len(spans), {"query": [b - a for a, b in zip(starts, ends, strict=True)]})


def write_loadgen(starts: Iterable[int], latencies: Iterable[int], samples: int) -> str:
    """Write queries as LoadGen would, one ``Sample`` pair of events per sample; times in nanoseconds."""
    lines: list[str] = []
    number = 0
    for query, (start, latency) in enumerate(zip(starts, latencies, strict=True)):
        for _ in range(samples):
            lines += _sample(number, query, start, latency)
            number += 1
    body = ",\n".join(lines)
    return f'{{"traceEvents":[\n{body},\n{{"name":"LastTrace"}}\n],\n"displayTimeUnit":"ns"\n}}\n'


def _sample(number: int, query: int, start: int, latency: int) -> Iterator[str]:
    said = f'"sample_seq":{number},"query_seq":{query},"sample_idx":{number},"issue_start_ns":0,"complete_ns":{latency}'
    head = '"name":"Sample","cat":"default"'
    yield f'{{{head},"ph":"{_OPEN}","pid":0,"id":{number},"ts":{start / 1000:.3f},"args":{{{said}}}}}'
    yield f'{{{head},"ph":"{_CLOSE}","pid":0,"id":{number},"ts":{(start + latency) / 1000:.3f}}}'


def read_trtexec(text: str) -> Trace:
    """Read ``trtexec --exportTimes``; its latency is copy in, compute and copy out, without waiting in between.

    Raises:
        DataError: it is no such list, or an empty one.
    """
    try:
        entries = msgspec.json.decode(text, type=list[_Inference])
    except msgspec.DecodeError as error:
        raise DataError(f"not a file of trtexec --exportTimes: {error}; write it again") from error
    if not entries:
        raise DataError("this file of trtexec --exportTimes holds no inference: run it for longer")
    begun = entries[0].startH2d_ms
    trace = Trace(stages={"copy in": [], "compute": [], "copy out": []})
    for entry in entries:
        parts = (
            entry.endH2d_ms - entry.startH2d_ms,
            entry.endCompute_ms - entry.startCompute_ms,
            entry.endD2h_ms - entry.startD2h_ms,
        )
        for times, part in zip(trace.stages.values(), parts, strict=True):
            times.append(_ns(part))
        start = _ns(entry.startH2d_ms - begun)
        trace.starts.append(start)
        trace.ends.append(start + sum(_ns(part) for part in parts))
        trace.cpu.append(0)
    return trace


def write_trtexec(starts: Iterable[int], latencies: Iterable[int]) -> str:
    """Write queries in the form of ``--exportTimes``: all of a query is compute, for copies were not timed alone."""
    entries = []
    for start, latency in zip(starts, latencies, strict=True):
        begun, done = start / 1e6, (start + latency) / 1e6
        edges = {f"{edge}{part}Ms": begun for part in ("Enq", "H2d") for edge in ("start", "end")}
        edges |= {"startComputeMs": begun, "endComputeMs": done, "startD2hMs": done, "endD2hMs": done}
        spans = {"h2dMs": 0.0, "computeMs": latency / 1e6, "d2hMs": 0.0, "latencyMs": latency / 1e6}
        entries.append(edges | spans)
    return msgspec.json.format(msgspec.json.encode(entries), indent=1).decode()


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)
