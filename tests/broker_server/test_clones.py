"""Clones: boards that take turns are found, boards that start again are not taken for clones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker_server.clones import REMEMBERED, Clones
from edge_protocol.ids import DeviceId

CAM = DeviceId("cam-1")


@given(st.lists(st.integers(1, 4), max_size=40))
def test_restarts_and_repeated_births_are_no_clones(repeats: list[int]) -> None:
    """However often a board starts, and tells of each start, it is never flagged."""
    clones = Clones(10)
    assert not any(clones.born(CAM, b"%d" % boot) for boot, times in enumerate(repeats) for _ in range(times))


@given(st.integers(2, REMEMBERED), st.integers(0, 5))
def test_boards_that_take_turns_are_found_in_the_second_turn(boards: int, starts: int) -> None:
    """The first board that speaks again after another is flagged, and each one after it."""
    clones = Clones(10)
    for boot in range(starts):
        clones.born(CAM, b"before %d" % boot)
    first, second = ([clones.born(CAM, b"%d" % board) for board in range(boards)] for _ in range(2))
    assert (any(first), all(second)) == (False, True)


def test_memory_is_bounded() -> None:
    """A fleet larger than the limit forgets the device that was born longest ago."""
    clones = Clones(1)
    clones.born(CAM, b"a")
    clones.born(DeviceId("cam-2"), b"x")
    clones.born(CAM, b"b")
    assert not clones.born(CAM, b"a")
