"""What is said of a long run, from its windows alone."""

from __future__ import annotations

import re
from typing import Any

import pytest

from devices.latency.result import summarise
from devices.latency.soak import Window, judge, window_of


def windows(count: int = 40, **of: Any) -> list[Window]:
    """Even windows of a minute each; a keyword is a function of the window's number."""
    plain: dict[str, Any] = {"clock_mhz": 1500.0, "celsius": 60.0, "memory_mb": 100.0, "throttled": 0}
    made = []
    for number in range(count):
        values = {**plain, **{name: value(number) for name, value in of.items()}}
        latency = values.pop("p50_ms", 1.0)
        made.append(
            Window(at_s=60.0 * (number + 1), queries=100, p50_ms=latency, p90_ms=2.0, p99_ms=3.0, max_ms=9.0, **values)
        )
    return made


def test_an_even_run_has_no_findings() -> None:
    """With sensors and without; one stall, and a slow first quarter, decide nothing."""
    assert judge(windows()) == ()
    assert judge(windows(clock_mhz=lambda _: None, celsius=lambda _: None, memory_mb=lambda _: None)) == ()
    assert judge(windows(p50_ms=lambda n: 50.0 if n == 33 else 1.0)) == ()
    assert judge(windows(p50_ms=lambda n: 3.0 if n < 8 else 1.0)) == ()


@pytest.mark.parametrize(
    ("of", "says"),
    [
        ({"p50_ms": lambda n: 1 + n / 100}, "slower: p50 went from 1.15 to 1.35 ms"),
        ({"throttled": lambda n: int(n == 20)}, "throttled: 1 times, first in the window that ended at 1260 s"),
        ({"slowed_by": lambda n: ("gpu",) if n > 30 else ()}, r"throttled \(gpu\): 0 times, first in .* 1920 s"),
        ({"clock_mhz": lambda n: 1500 if n < 30 else 1200}, "the clock fell from 1500 to 1200 MHz"),
        ({"celsius": lambda n: 40.0 + n}, "still heating by 1.0 °C a minute"),
        ({"memory_mb": lambda n: 100.0 + n}, r"memory grows: 114 to 134 MB \(60 MB an hour\)"),
    ],
)
def test_each_change_is_found_and_nothing_else(of: dict[str, Any], says: str) -> None:
    """One finding for one change, with its size."""
    found = judge(windows(**of))
    assert len(found) == 1
    assert re.search(says, found[0])


def test_a_short_run_is_not_judged() -> None:
    """Seven windows say so, and pass nothing."""
    assert judge(windows(7))[0].startswith("too short to judge: 7 windows")
    assert judge(windows(8)) == ()


def test_a_window_takes_every_query_in() -> None:
    """Percentiles and the slowest of all its queries, with what the sensors said."""
    found = window_of(summarise([1_000_000 * at for at in range(1, 101)]), 5.0, celsius=51.5, slowed_by=("cpu",))
    assert (found.queries, found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (100, 51, 91, 100, 100)
    assert (found.celsius, found.slowed_by, found.memory_mb) == (51.5, ("cpu",), None)
