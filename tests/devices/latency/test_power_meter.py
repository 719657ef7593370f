"""The board's power is sampled while something runs, and nothing else is made of it."""

from __future__ import annotations

import threading
from itertools import count, cycle

import pytest

from devices.latency.power_meter import PowerMeter


def test_the_mean_of_what_the_board_said_meanwhile() -> None:
    """What it drew before does not count."""
    said = cycle([4.0, 6.0])
    asked, enough = count(), threading.Event()

    def read() -> float:
        number = next(asked)
        if number == 4:
            enough.set()
        return 100.0 if number == 0 else next(said)

    with PowerMeter(read, every_s=0.001) as meter:
        assert enough.wait(30)
    assert meter.watts is not None
    assert 4.0 <= meter.watts <= 6.0


def test_a_board_without_a_sensor_costs_no_thread() -> None:
    """It is asked once."""
    asked: list[None] = []
    with PowerMeter(lambda: asked.append(None), every_s=0.001) as meter:
        assert not any(thread.name == "power" for thread in threading.enumerate())
    assert meter.watts is None
    assert len(asked) == 1


def test_work_that_is_over_at_once_has_one_sample() -> None:
    """Taken when it is over."""
    with PowerMeter(lambda: 5.0, every_s=60) as meter:
        pass
    assert meter.watts == 5.0


def test_a_failure_of_the_work_ends_the_sampling() -> None:
    """And is raised as it is."""
    with pytest.raises(ZeroDivisionError), PowerMeter(lambda: 5.0, every_s=0.001):
        _ = 1 / 0
    assert not any(thread.name == "power" for thread in threading.enumerate())
