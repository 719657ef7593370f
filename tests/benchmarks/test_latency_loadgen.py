"""MLPerf LoadGen, run for real, as the benchmark against it does."""

from __future__ import annotations

import time

import pytest

from benchmarks.latency.loadgen import both, under_loadgen
from devices.latency.load import Scenario


@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream"])
def test_every_query_of_loadgen_is_read_from_its_trace(scenario: Scenario) -> None:
    """As many latencies as queries, none shorter than it slept nor than by our clock; eight samples are one query."""
    asked: list[int] = []

    def query(number: int) -> None:
        asked.append(number)
        time.sleep(0.001)

    alone, found = under_loadgen(query, scenario, 20)
    assert len(alone) == len(found) == len(asked) == 20
    assert min(alone) >= 1_000_000
    assert all(whole > own for whole, own in zip(found, alone, strict=True))
    assert max(asked) < 32


def test_both_sides_see_as_many_queries() -> None:
    """Blocks alternate, and the first of each is left out."""
    found = both(lambda _: time.sleep(0.002), "single-stream", 2)
    assert len(found.ours) == len(found.own) == len(found.theirs) == len(found.way) >= 200
    assert all(times == sorted(times) for times in found)
    assert found.way[0] > 0
