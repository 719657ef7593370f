"""MLPerf LoadGen, run for real, as the benchmark against it does."""

from __future__ import annotations

import time

import pytest

from benchmarks.latency.loadgen import both, under_loadgen
from devices.latency.load import Scenario


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream"])
def test_every_query_of_loadgen_is_read_from_its_trace(scenario: Scenario) -> None:
    """As many latencies as queries were asked for, none shorter than the query slept; eight samples are one query."""
    asked: list[int] = []

    def query(number: int) -> None:
        asked.append(number)
        time.sleep(0.001)

    found = under_loadgen(query, scenario, 20)
    assert len(found) == len(asked) == 20
    assert min(found) >= 1_000_000
    assert max(asked) < 32


def test_both_sides_see_as_many_queries() -> None:
    """Blocks alternate, and the first of each is left out."""
    ours, theirs = both(lambda _: time.sleep(0.002), "single-stream", 2)
    assert len(ours) == len(theirs) >= 200
    assert ours == sorted(ours)
