"""What a start serves when the starts before it ended in a crash: a bad release is given up, a sound one comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from edge_client.config import ProbationConfig
from edge_client.offers import MAX_ATTEMPTS
from edge_protocol import messages as m
from edge_protocol.errors import DeploymentError
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.test_deltas import moved
from tests.fakes.small_centre import artifact_files

SETTLE_S = ProbationConfig().settle_s
FIRST = artifact_files()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeviceRig]:
    """A camera that runs release 2, with release 1 as the one before."""
    made = DeviceRig(device_config(tmp_path))
    for counter, files in ((1, FIRST), (2, moved(FIRST))):
        made.centre.release(counter, {"nano": files})
        made.until(lambda counter=counter: running(made) == counter, f"release {counter}")  # type: ignore[misc]
    crash(made)
    yield made
    made.close()


def running(rig: DeviceRig) -> int:
    """What answers frames."""
    return rig.agent.core.running.release


def crash(rig: DeviceRig, times: int = 1) -> None:
    """The agent ends unasked, and is started again."""
    for _ in range(times):
        rig.agent.close()
        rig.boot()


def attempts(rig: DeviceRig) -> dict[int, int]:
    """What the disk counts."""
    return rig.agent._installed.attempts()


def serve_for_a_while(rig: DeviceRig) -> None:
    """Answer frames until the boot is forgotten."""
    rig.until(lambda: rig.agent.inference.counters.answered, "answers")
    rig.agent._boot.tick(monotonic() + SETTLE_S)


def test_a_release_that_crashes_soon_after_its_boot_gives_way_to_the_one_before(rig: DeviceRig) -> None:
    """Three starts that ended in a crash, frames answered or not: then the one before, without asking anybody."""
    for crashed in range(MAX_ATTEMPTS):
        assert (running(rig), attempts(rig)[2]) == (2, crashed + 1)
        rig.until(lambda: rig.agent.inference.counters.answered, "answers")
        crash(rig)
    assert running(rig) == 1
    rig.until(lambda: "took the agent down 3 times" in rig.centre.of(m.Deployment)[-1].reason, "the reason")
    rig.centre.release(3, {"nano": artifact_files(seed=1)})
    rig.until(lambda: running(rig) == 3, "release 3")
    crash(rig)
    assert running(rig) == 3


def test_what_runs_is_not_refused_at_its_last_attempt(rig: DeviceRig) -> None:
    """The fleet's release comes again while it is on its third start: it is kept."""
    crash(rig, MAX_ATTEMPTS - 1)
    begun = len(rig.centre.heard)
    assert attempts(rig)[2] == MAX_ATTEMPTS
    rig.until(lambda: len(rig.centre.heard) > begun and rig.agent.core._releasing.settled, "its word")
    assert (running(rig), rig.centre.of(m.Deployment)[-1].state) == (2, "committed")


def test_crashes_are_forgotten_once_it_has_served_for_a_while(rig: DeviceRig) -> None:
    """Crashes that are days apart never add up; a look before the time is up forgets nothing."""
    for _ in range(2 * MAX_ATTEMPTS):
        rig.until(lambda: rig.agent.inference.counters.answered, "answers")
        assert attempts(rig)[2] == 1
        serve_for_a_while(rig)
        assert attempts(rig) == {}
        crash(rig)
    assert running(rig) == 2


def test_an_agent_that_is_asked_to_stop_was_not_taken_down(rig: DeviceRig) -> None:
    """However often a board is shut down in order, its release stays."""
    for _ in range(2 * MAX_ATTEMPTS):
        rig.close()
        rig.boot()
        assert running(rig) == 2


def test_a_sound_release_comes_back_after_a_storm_of_power_cuts(rig: DeviceRig) -> None:
    """Five cuts within minutes lead to the release before; once that has served for a while, the next start is 2's."""
    crash(rig, 5)
    assert running(rig) == 1
    serve_for_a_while(rig)
    assert running(rig) == 1
    crash(rig)
    assert running(rig) == 2
    crash(rig)
    assert running(rig) == 1, "a bad one costs one crash, not three"


def test_a_device_that_gave_every_release_up_tries_them_again(rig: DeviceRig) -> None:
    """It is up for a while without any, so that another can be sent; then it ends, and the next start serves again."""
    crash(rig, 2 * MAX_ATTEMPTS)
    assert (running(rig), rig.agent._drops["fallback"]) == (0, 2)
    rig.agent._boot.tick(monotonic())
    with pytest.raises(DeploymentError, match="start again"):
        rig.agent._boot.tick(monotonic() + SETTLE_S)
    crash(rig)
    assert running(rig) == 2
    serve_for_a_while(rig)
    assert attempts(rig) == {1: MAX_ATTEMPTS - 1}


def test_a_device_that_gave_every_release_up_takes_the_next(rig: DeviceRig) -> None:
    """And then it has no reason to end."""
    crash(rig, 2 * MAX_ATTEMPTS)
    rig.centre.release(3, {"nano": artifact_files(seed=1)})
    rig.until(lambda: running(rig) == 3, "release 3")
    serve_for_a_while(rig)
    assert attempts(rig) == {1: MAX_ATTEMPTS - 1, 2: MAX_ATTEMPTS - 1}


def test_a_candidate_that_takes_the_agent_down_is_to_blame_alone(rig: DeviceRig) -> None:
    """It is left alone after three crashes, and what serves has none to its name."""
    crash(rig)
    rig.agent._installed.end_attempts()
    rig.config = device_config(Path(rig.config.state_dir).parent, probation={"frames": 10_000, "wait_s": 600.0})
    crash(rig)
    rig.centre.release(3, {"nano": artifact_files(seed=1)})
    for crashed in range(MAX_ATTEMPTS):
        rig.until(lambda: rig.agent.core.stage == "probation", "a candidate being tried")
        assert attempts(rig) == {3: crashed + 1}
        crash(rig)
    rig.until(lambda: rig.agent.core.stage == "rejected", "its refusal")
    assert running(rig) == 2
