"""When training stands back, without a board and without waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.governor import Board, Governor, PauseConfig, Phase, Reading, assess
from edge_protocol.errors import ConfigError

LIMITS = PauseConfig(hot_c=80, cool_c=70, drop_share=0.2, latency_ms=100, load=2, relief=0.5, patience_s=300)
CALM, HOT, BUSY = Board.CALM, Board.HOT, Board.BUSY


@pytest.mark.parametrize(
    ("before", "reading", "after"),
    [
        (CALM, Reading(), CALM),
        (HOT, Reading(), CALM),
        (CALM, Reading(celsius=79.9), CALM),
        (CALM, Reading(celsius=80), HOT),
        (HOT, Reading(celsius=70), HOT),
        (HOT, Reading(celsius=69.9), CALM),
        (BUSY, Reading(celsius=75), CALM),
        (BUSY, Reading(celsius=80), HOT),
        (CALM, Reading(drop_share=0.19), CALM),
        (CALM, Reading(drop_share=0.2), BUSY),
        (BUSY, Reading(drop_share=0.1), BUSY),
        (BUSY, Reading(drop_share=0.09), CALM),
        (CALM, Reading(latency_ms=100), BUSY),
        (CALM, Reading(load=2), BUSY),
        (BUSY, Reading(latency_ms=49, load=0.9), CALM),
        (HOT, Reading(celsius=72, load=5), HOT),
        (HOT, Reading(celsius=60, load=5), BUSY),
    ],
)
def test_the_board_is_assessed_with_hysteresis(before: Board, reading: Reading, after: Board) -> None:
    """Each limit holds a job at one value and lets it go at another; hot comes first; silence is calm."""
    assert assess(before, reading, LIMITS) is after


def test_limits_that_are_off_hold_nothing() -> None:
    """Only heat counts unless more is asked for: a board that always drops frames would never learn."""
    assert assess(CALM, Reading(drop_share=1.0, latency_ms=1e6, load=1e6), PauseConfig()) is CALM
    assert assess(CALM, Reading(celsius=95), PauseConfig()) is HOT


def test_a_job_waits_runs_pauses_and_goes_on() -> None:
    """A hot board holds it before its start and in its course; only the time it runs counts towards its limit."""
    governor = Governor(LIMITS, timeout_s=100)
    governor.read(Reading(celsius=90))
    assert governor.begin(0) is Phase.WAITING
    assert governor.advance(200) is Phase.WAITING
    governor.read(Reading(celsius=60))
    assert governor.advance(250) is Phase.RUNNING
    assert governor.advance(340) is Phase.RUNNING
    governor.read(Reading(drop_share=0.5))
    assert governor.advance(341) is Phase.PAUSED
    assert governor.advance(600) is Phase.PAUSED
    assert governor.overdue() == ""
    governor.read(Reading())
    assert governor.advance(601) is Phase.RUNNING
    assert governor.overdue() == ""
    governor.advance(611)
    assert governor.overdue() == "killed after 100 s"
    assert governor.pauses == 2


@pytest.mark.parametrize("started", [False, True])
def test_a_job_that_waits_too_long_is_put_off(started: bool) -> None:
    """Before its start or in its course; the reason says what the board was."""
    governor = Governor(LIMITS, timeout_s=1000)
    if started:
        governor.begin(-10)
    governor.read(Reading(celsius=90))
    governor.advance(0) if started else governor.begin(0)
    governor.advance(299)
    assert governor.overdue() == ""
    governor.advance(300)
    assert governor.overdue() == "put off: the board was hot for 300 s"


def test_each_job_has_its_own_time() -> None:
    """What one used up is not held against the next."""
    governor = Governor(LIMITS, timeout_s=10)
    governor.begin(0)
    governor.advance(11)
    assert governor.overdue()
    governor.begin(20)
    governor.advance(29)
    assert governor.overdue() == ""


@given(st.lists(st.floats(70, 79.99), min_size=1))
def test_between_the_limits_nothing_changes(temperatures: list[float]) -> None:
    """Whatever a temperature does between cool and hot, the board stays what it was."""
    for before in (HOT, CALM):
        board = before
        for celsius in temperatures:
            board = assess(board, Reading(celsius=celsius), LIMITS)
        assert board is before


def test_limits_the_wrong_way_round_are_refused() -> None:
    """A job would be stopped and started at each reading."""
    with pytest.raises(ConfigError, match="above hot_c"):
        PauseConfig(hot_c=70, cool_c=80)
