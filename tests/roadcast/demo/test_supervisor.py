"""Children are started, watched, and never outlive the demo: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest

from edge_protocol.errors import NotReadyError
from roadcast.demo.supervisor import ChildDiedError, Supervisor

OBEDIENT = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}])
print(child.pid, 'up', flush=True)
time.sleep(60)
"""


def _until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = monotonic() + within_s
    while not condition():
        assert monotonic() < deadline
        sleep(0.01)


def _launch(fleet: Supervisor, name: str, code: str) -> None:
    fleet.launch(name, [sys.executable, "-c", code])
    fleet.wait_for(name, "up", 10)


def _pids(fleet: Supervisor) -> dict[str, int]:
    return {name: child.pid for name, child in fleet._children.items()}


def test_children_have_groups_and_logs_of_their_own(tmp_path: Path) -> None:
    """A signal to the demo's own group does not reach them, and what they say is kept."""
    with Supervisor(tmp_path / "logs") as fleet:
        _launch(fleet, "one", OBEDIENT)
        assert os.getpgid(_pids(fleet)["one"]) == _pids(fleet)["one"]
        fleet.check()
        assert fleet.said("one") == "up\n"
    assert (tmp_path / "logs" / "one.log").read_text() == ""


def test_every_child_ends_even_after_an_exception(tmp_path: Path) -> None:
    """Leaving the supervisor by an error ends them all."""
    pids: list[int] = []

    def demo() -> None:
        with Supervisor(tmp_path) as fleet:
            for name in "abc":
                _launch(fleet, name, OBEDIENT)
            pids.extend(_pids(fleet).values())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        demo()
    assert len(pids) == 3
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    """After the grace a stubborn child is killed."""
    fleet = Supervisor(tmp_path, grace_s=0.2)
    _launch(fleet, "stubborn", STUBBORN)
    pid = _pids(fleet)["stubborn"]
    fleet.stop()
    assert not psutil.pid_exists(pid)


def test_grandchildren_end_too(tmp_path: Path) -> None:
    """A trainer that a device started goes with the device, even when it ignores the request."""
    with Supervisor(tmp_path, grace_s=0.2) as fleet:
        _launch(fleet, "parent", PARENT)
        grandchild = int(fleet.said("parent").split()[0])
        assert psutil.pid_exists(grandchild)
    _until(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize(
    ("code", "how"), [("raise SystemExit('no such camera')", "exit code 1"), (STUBBORN, "SIGKILL")]
)
def test_a_death_is_noticed_with_the_end_of_the_log(tmp_path: Path, code: str, how: str) -> None:
    """A child that ends by itself, or is killed, is reported with the reason."""
    with Supervisor(tmp_path) as fleet:
        fleet.launch("camera", [sys.executable, "-c", code])
        if how == "SIGKILL":
            fleet.wait_for("camera", "up", 10)
            os.kill(_pids(fleet)["camera"], 9)
        with pytest.raises(ChildDiedError, match=how) as caught:
            fleet.wait_for("camera", "never said", 10)
        assert ("no such camera" in str(caught.value)) is (how == "exit code 1")


def test_a_child_that_never_gets_ready_is_reported(tmp_path: Path) -> None:
    """Waiting for a sign ends at its time limit."""
    with Supervisor(tmp_path) as fleet:
        _launch(fleet, "one", OBEDIENT)
        with pytest.raises(NotReadyError, match=r"one was not ready after 0\.1 s"):
            fleet.wait_for("one", "never said", 0.1)


def test_it_starts_roadcast_itself(tmp_path: Path) -> None:
    """`start` runs our own command line, with an environment of its own."""
    with Supervisor(tmp_path, environment={"NO_COLOR": "1"}) as fleet:
        fleet.start("version", "version", "--json")
        assert '"roadcast"' in fleet.wait_for("version", "tensorrt", 20)


def test_a_signal_while_a_child_is_started_does_not_lose_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Ctrl-C that comes just after the fork is raised once the child is listed, so that it ends with the others."""
    real = subprocess.Popen
    born: list[int] = []

    def interrupted(*arguments: Any, **settings: Any) -> subprocess.Popen[bytes]:
        child = real(*arguments, **settings)
        born.append(child.pid)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt), Supervisor(tmp_path) as fleet:
        fleet.launch("one", [sys.executable, "-c", OBEDIENT])
    assert len(born) == 1
    assert not psutil.pid_exists(born[0])


def test_it_works_off_the_main_thread(tmp_path: Path) -> None:
    """Only the main thread has signal handlers; children are started and ended from any."""
    pids: list[int] = []

    def elsewhere() -> None:
        with Supervisor(tmp_path) as fleet:
            _launch(fleet, "one", OBEDIENT)
            pids.extend(_pids(fleet).values())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(30)
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])
