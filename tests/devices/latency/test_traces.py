"""Traces of LoadGen and trtexec are read as they write them, and ours as theirs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.latency.traces import read_loadgen, read_trtexec, write_loadgen, write_trtexec
from edge_protocol.errors import DataError

LOADGEN = """{"traceEvents":[
{"name":"GenerateQueries","ph":"X","pid":45,"tid":45,"ts":42.073,"dur":271.622,"args":{}},
{"name":"Sample","cat":"default","ph":"b","pid":45,"id":0,"ts":300.500,"args":{"sample_seq":0,"query_seq":0,\
"sample_idx":7,"issue_start_ns":0,"complete_ns":2000000}},
{"name":"Sample","cat":"default","ph":"e", "pid":45,"id":0,"ts":2300.500},
{"name":"Sample","cat":"default","ph":"b","pid":45,"id":2,"ts":2400.500,"args":{"sample_seq":2,"query_seq":1,\
"sample_idx":1,"issue_start_ns":0,"complete_ns":1500000}},
{"name":"Sample","cat":"default","ph":"b","pid":45,"id":1,"ts":2400.500,"args":{"sample_seq":1,"query_seq":1,\
"sample_idx":3,"issue_start_ns":0,"complete_ns":1750000}},
{"name":"LogDetail","ph":"X","pid":45,"tid":47,"ts":323860.321,"dur":1.012,"args":{"key":""num_errors""}},
{"name":"LastTrace"}
],
"displayTimeUnit":"ns",
"otherData":{
"ts":1795653532739440.500,
"version":"MLPerf LoadGen v1.0"
}
}
"""
TRTEXEC = """[
  { "startEnqMs" : 10, "endEnqMs" : 10.1, "startH2dMs" : 10.2, "endH2dMs" : 10.3, "startComputeMs" : 10.5\
, "endComputeMs" : 14.5, "startD2hMs" : 14.6, "endD2hMs" : 14.8, "h2dMs" : 0.1, "computeMs" : 4, "d2hMs" : 0.2\
, "latencyMs" : 4.3, "endToEndMs" : 4.6 }
, { "startEnqMs" : 20, "endEnqMs" : 20.1, "startH2dMs" : 20.2, "endH2dMs" : 20.3, "startComputeMs" : 20.3\
, "endComputeMs" : 23.3, "startD2hMs" : 23.3, "endD2hMs" : 23.5, "h2dMs" : 0.1, "computeMs" : 3, "d2hMs" : 0.2\
, "latencyMs" : 3.3 }
]
"""


def test_loadgens_trace_is_read_although_it_is_not_json() -> None:
    """Queries in order, each as long as its last sample; the line that is no JSON does not matter."""
    trace = read_loadgen(LOADGEN)
    assert trace.starts == [0, 2_100_000]
    assert trace.latencies == [2_000_000, 1_750_000]


def test_trtexecs_times_are_read() -> None:
    """Latency is copy in, compute and copy out, without the gaps, as trtexec defines it."""
    trace = read_trtexec(TRTEXEC)
    assert trace.latencies == [4_300_000, 3_300_000]
    assert trace.starts == [0, 10_000_000]
    assert trace.stages == {"copy in": [100_000] * 2, "compute": [4_000_000, 3_000_000], "copy out": [200_000] * 2}


@pytest.mark.parametrize("text", ["", "{}", LOADGEN.splitlines()[0], LOADGEN[:250]])
def test_a_loadgen_trace_without_a_sample_is_refused(text: str) -> None:
    """Empty, another document, cut off in its first sample."""
    with pytest.raises(DataError, match=r"trace"):
        read_loadgen(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", TRTEXEC[:100], '[{"startH2dMs": "x"}]'])
def test_a_file_that_is_not_trtexecs_is_refused(text: str) -> None:
    """Empty, an empty list, another document, cut off, no numbers."""
    with pytest.raises(DataError, match="trtexec"):
        read_trtexec(text)


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('"endComputeMs" : 23.3', '"endComputeMs" : 20.29', "`endComputeMs` is before `startComputeMs` - at `$[1]`"),
        ('"endD2hMs" : 14.8', '"endD2hMs" : -14', r"at `$[0].endD2hMs`"),
        ('"startH2dMs" : 10.2', '"startH2dMs" : 1e308', r"at `$[0].startH2dMs`"),
    ],
)
def test_a_time_of_trtexec_that_cannot_be_is_named(before: str, after: str, field: str) -> None:
    """An end before its beginning, a negative time, one that no clock reaches: entry and field."""
    assert before in TRTEXEC
    with pytest.raises(DataError, match=re.escape(field)):
        read_trtexec(TRTEXEC.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('"ts":300.500', '"ts":1e308', "line 3: .*`$.ts`"),
        ('"ts":300.500', '"ts":-1e308', "line 3: .*`$.ts`"),
        ('"complete_ns":2000000', f'"complete_ns":{2**63}', "line 3: .*`$.args.complete_ns`"),
    ],
)
def test_a_time_of_loadgen_that_cannot_be_is_named(before: str, after: str, field: str) -> None:
    """Beyond what any clock reaches: line and field."""
    assert before in LOADGEN
    with pytest.raises(DataError, match=field.replace("$", r"\$")):
        read_loadgen(LOADGEN.replace(before, after))


QUERIES = st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**9)), min_size=1, max_size=20)


@given(queries=QUERIES, samples=st.integers(1, 3))
def test_what_is_written_for_loadgen_is_read_back(queries: list[tuple[int, int]], samples: int) -> None:
    """Latencies to the nanosecond, starts to the nanosecond after the first."""
    starts, latencies = zip(*sorted(queries), strict=True)
    trace = read_loadgen(write_loadgen(starts, latencies, samples))
    assert trace.latencies == list(latencies)
    assert trace.starts == [start - starts[0] for start in starts]


@given(queries=QUERIES)
def test_what_is_written_for_trtexec_is_read_back(queries: list[tuple[int, int]]) -> None:
    """Latencies to the nanosecond."""
    starts, latencies = zip(*sorted(queries), strict=True)
    trace = read_trtexec(write_trtexec(starts, latencies))
    assert trace.latencies == list(latencies)
