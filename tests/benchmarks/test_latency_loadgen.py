"""The benchmark against MLPerf LoadGen, run for real."""

from __future__ import annotations

import time

from benchmarks.latency.loadgen import both


def test_both_sides_see_as_many_queries() -> None:
    """Blocks alternate, and the first of each is left out."""
    found = both(lambda _: time.sleep(0.002), "single-stream", 2)
    assert len(found.ours) == len(found.own) == len(found.theirs) == len(found.way) >= 200
    assert all(times == sorted(times) for times in found)
    assert found.way[0] > 0
