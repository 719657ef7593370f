"""A result says what was measured, what counts of it, and what to be careful about."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from devices.latency.result import read_result, summarise, write_result
from devices.latency.sensors import Sensed
from edge_protocol.errors import DataError, StoreError
from tests.fakes.latency import NOTHING_SENSED, result

EVEN = [1_000_000] * 1000


def test_a_slow_beginning_does_not_count() -> None:
    """Figures, throughput and the raw times begin where the run is even; the maximum of what counts stays."""
    found = result([3_000_000] * 50 + EVEN[:949] + [9_000_000])
    assert found.warm.begins == 50
    assert found.latency.count == len(found.raw.latencies) == 950
    assert found.latency.at(50).ms == 1
    assert found.latency.max_ms == 9
    assert found.raw.starts[0] == 150_000_000
    assert found.samples_per_s == pytest.approx(950 / 0.958)
    assert found.remarks == ()


def test_energy_is_divided_by_every_sample_that_ran() -> None:
    """Also by those of the beginning, which used energy as well."""
    sensed = msgspec.structs.replace(NOTHING_SENSED, energy_j=2.1)
    found = result([3_000_000] * 50 + EVEN, sensed=sensed, scenario="multi-stream", samples=4)
    assert found.energy_mj_per_sample == pytest.approx(2.1e3 / (1050 * 4))


@pytest.mark.parametrize(
    ("latencies", "cpu", "sensed", "remark"),
    [
        (EVEN, [500_000] * 1000, NOTHING_SENSED, "contended: wall p50 is 2.00 times"),
        (EVEN[:50], None, NOTHING_SENSED, "too short: p90 needs 64"),
        ([10**6 + 10**3 * i for i in range(1000)], None, NOTHING_SENSED, "not steady"),
        (EVEN[:20], None, NOTHING_SENSED, "too few queries to tell"),
        (EVEN, None, Sensed(None, (1500.0, 1400.0), 0.067, True, 0, None), "clock moved by 6.7%"),
        (EVEN, None, Sensed(None, None, None, None, 3, None), "throttled: .* 3 times"),
        (EVEN, None, Sensed(None, None, None, False, None, None), "not pinned"),
    ],
)
def test_what_spoils_a_figure_is_remarked_upon(
    latencies: list[int], cpu: list[int] | None, sensed: Sensed, remark: str
) -> None:
    """Contention, too few queries, drift, a moving clock, throttling, clocks under a governor."""
    found = result(latencies, cpu=cpu, sensed=sensed)
    assert [text for text in found.remarks if re.search(remark, text)]


def test_waiting_in_a_servers_queue_is_not_contention() -> None:
    """Its latency holds waiting, which uses no CPU by design."""
    assert result(EVEN, cpu=[1000] * 1000, scenario="server").remarks == ()


def test_a_result_survives_the_disk(tmp_path: Path) -> None:
    """What is written is read back whole."""
    found = result(EVEN)
    write_result(tmp_path / "r.json", found)
    assert read_result(tmp_path / "r.json") == found


def test_what_is_no_result_is_named(tmp_path: Path) -> None:
    """Missing, truncated, of another format, and a folder that is not there."""
    path = tmp_path / "r.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_result(path)
    write_result(path, result(EVEN))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="measure again"):
        read_result(path)
    path.write_text('{"format": "something-else"}')
    with pytest.raises(DataError, match="not a result"):
        read_result(path)
    with pytest.raises(StoreError, match="give another file"):
        write_result(tmp_path / "none" / "r.json", result(EVEN))


def test_a_summary_takes_every_time_in() -> None:
    """Mean, extremes and percentiles of a hundred times, in any order."""
    found = summarise([1_000_000 * at for at in reversed(range(100))])
    assert (found.count, found.mean_ms, found.min_ms, found.max_ms) == (100, 49.5, 0, 99)
    assert [found.at(p).ms for p in (50, 90, 99)] == [50, 90, 99]
