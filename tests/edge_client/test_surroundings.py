"""What is found out about the link: a file, a command, the clock, and what an operator asks for."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from edge_client.fetch_policy import FetchConfig
from edge_client.surroundings import COMMAND_S, LOOK_S, URGENT, Lookout
from tests.fakes.waiting import wait_for


def test_it_is_the_minute_of_the_local_day(tmp_path: Path) -> None:
    """By the clock that people on the spot read."""
    before, seen, after = time.localtime(), Lookout(FetchConfig(), tmp_path)(0.0), time.localtime()
    assert seen.minute in {at.tm_hour * 60 + at.tm_min for at in (before, after)}
    assert not seen.metered
    assert not seen.urgent


@pytest.mark.parametrize(
    ("said", "metered"), [("1\n", True), ("yes", True), ("0\n", False), ("", False), (" No ", False), (None, False)]
)
def test_a_file_tells_whether_the_link_is_metered(tmp_path: Path, said: str | None, metered: bool) -> None:
    """Missing, empty and no mean no; it is looked at again every few seconds."""
    path = tmp_path / "metered"
    look = Lookout(FetchConfig(metered_file=str(path)), tmp_path)
    assert not look(0.0).metered
    if said is not None:
        path.write_text(said)
    assert not look(LOOK_S / 2).metered
    assert Lookout(FetchConfig(metered_file=str(tmp_path)), tmp_path)(0.0).metered, "a folder in its place"
    assert look(LOOK_S).metered is metered


def test_a_file_in_the_state_directory_makes_it_urgent(tmp_path: Path) -> None:
    """An operator on the board, or a job of theirs, makes it."""
    look = Lookout(FetchConfig(metered=True), tmp_path)
    (tmp_path / URGENT).touch()
    assert look(0.0).urgent
    assert look(0.0).metered


@pytest.mark.parametrize(("code", "metered"), [(0, True), (1, False)])
def test_a_command_tells_whether_the_link_is_metered(tmp_path: Path, code: int, metered: bool) -> None:
    """Until it has answered, the link counts as metered."""
    look = Lookout(FetchConfig(metered_command=(sys.executable, "-c", f"raise SystemExit({code})")), tmp_path)
    assert look(0.0).metered
    assert look._command is not None
    look._command.wait()
    assert look(LOOK_S).metered is metered
    look.close()


def test_a_command_that_hangs_is_killed_and_one_that_is_not_there_is_a_metered_link(tmp_path: Path) -> None:
    """Nothing waits for it, and nothing is left."""
    hangs = Lookout(FetchConfig(metered_command=("sleep", "600")), tmp_path)
    hangs(0.0)
    process = hangs._command
    assert process is not None
    assert hangs(COMMAND_S).metered
    wait_for(lambda: process.poll() is not None, "end of the first command")
    hangs.close()
    missing = Lookout(FetchConfig(metered_command=(str(tmp_path / "none"),)), tmp_path)
    assert missing(0.0).metered
    missing.close()
