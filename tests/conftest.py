"""Fixtures of the whole suite: where real data is, and that no test leaves a process behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
MARK = "metrla_week_speed.npz"
"""A pack that every complete folder of real data holds."""
GRACE_S = 5.0

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
settings.load_profile("untimed")


def find_real_data() -> Path | None:
    """Return the first folder of the search order that holds the real packs."""
    named = os.environ.get("ROADCAST_DATA")
    places = [Path(named)] if named else []
    places += [ROOT / "data", ROOT.parent / "shared" / "data"]
    return next((place for place in places if (place / MARK).is_file()), None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real packs; a test that asks for it is skipped where there is none."""
    found = find_real_data()
    if found is None:
        pytest.skip("no real data here: set ROADCAST_DATA or fill data/")
    return found


@pytest.fixture(scope="module", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the module whose tests leave a child process running, and end that process."""
    before = _children()
    yield
    left = [psutil.Process(pid) for pid in _children() - before if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(left, timeout=GRACE_S)
    names = [f"{process.pid} {' '.join(process.cmdline()[:4])}" for process in alive if process.is_running()]
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)
    assert not names, f"processes left behind: {names}"


def _children() -> set[int]:
    helpers = ("resource_tracker", "forkserver")
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if not any(name in " ".join(_cmdline(child)) for name in helpers)}


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
