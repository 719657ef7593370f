"""kill -9 at any moment of real deployments: the disk always holds a whole signed release; the next start goes on."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_client.offers import MAX_ATTEMPTS
from tests.edge_client.device_rig import device_config
from tests.faults.killed_agent import Killed, several

STAGES = ("starting", "booted", "booted", "booted", "staged", "building", "probation", "committed")
"""After which a kill comes; a release is offered and fetched within 0.3 s of the boot."""
SEED = 20_261_126
SETTLED = {"frames": 4, "wait_s": 5.0, "latency_factor": 1000, "settle_s": 0}
"""A release that was booted is believed from its first answer on."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A device with nothing installed."""
    return Killed(device_config(tmp_path_factory.mktemp("device"), probation=SETTLED), several())


def deploy_with_kills(device: Killed, deployments: int, seed: int) -> None:
    """Bring so many releases, each killed once or twice on its way, and then to its end."""
    rng, first = random.Random(seed), device.floor + 1
    for counter in range(first, first + deployments):
        for _ in range(rng.randint(1, MAX_ATTEMPTS - 1)):
            device.run(counter, rng.choice(STAGES), rng.choice((0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.4))))
            device.resolved()
        device.run(counter, "committed")
        assert device.resolved()[0].release == device.floor == counter


def tell(device: Killed, record_property: Callable[[str, object], None]) -> None:
    """Say how many kills hit which stage."""
    told = f"{sum(device.kills.values())} kills by stage: {device.kills}"
    record_property("kills", told)
    sys.stdout.write(told + "\n")


@pytest.mark.timeout(600)
def test_twenty_deployments_survive_being_killed(
    killed: Killed, record_property: Callable[[str, object], None]
) -> None:
    """After each kill the resolver finds what was committed or newer; the next start brings the release."""
    deploy_with_kills(killed, 20, SEED)
    tell(killed, record_property)
    assert len(killed.kills) >= 5, "kills hit too few stages to say anything"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_deployments_survive_being_killed_and_the_disk_does_not_grow(
    killed: Killed, record_property: Callable[[str, object], None]
) -> None:
    """The same, long enough for anything that a kill leaves behind to pile up."""
    deploy_with_kills(killed, 10, SEED + 1)
    before = files_below(killed.state)
    deploy_with_kills(killed, 200, SEED + 2)
    tell(killed, record_property)
    assert len(files_below(killed.state)) <= len(before) + 10, sorted(files_below(killed.state))
    assert {*STAGES, "half a file"} <= set(killed.kills)


@pytest.mark.timeout(600)
def test_a_release_under_which_the_agent_dies_time_and_again_is_left_alone(tmp_path: Path) -> None:
    """Killed three times with its candidate loaded, the device refuses it, says why, and takes the next."""
    device = Killed(device_config(tmp_path), several())
    device.run(1, "committed")
    quick, long = device.config, {"frames": 10_000, "wait_s": 600.0}
    device.config = device_config(tmp_path, probation=long)
    for _ in range(MAX_ATTEMPTS):
        device.run(2, "probation")
        assert [found.release for found in device.resolved()] == [1]
    device.config = quick
    with pytest.raises(AssertionError, match="release 2 was rejected"):
        device.run(2, "committed")
    device.run(3, "committed")
    assert device.resolved()[0].release == 3


@pytest.mark.timeout(300)
def test_a_release_under_which_the_agent_dies_soon_after_its_boots_is_given_up(tmp_path: Path) -> None:
    """Killed three times while it serves what it booted: the next start is the release before's, offline too."""
    device = Killed(device_config(tmp_path), several())
    device.run(1, "committed")
    device.run(2, "committed")
    for _ in range(MAX_ATTEMPTS):
        assert [found.release for found in device.resolved()] == [2, 1]
        device.run(2, "booted", 0.5)
    device.floor = 1
    assert [found.release for found in device.resolved()] == [1]
    device.run(3, "committed")
    assert device.resolved()[0].release == 3


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("clock_s", "refusal"), [(60.0, "clock-untrusted"), (2**31 + 60.0, "metadata-expired")], ids=["1970", "2038"]
)
def test_a_clock_that_jumps_keeps_no_device_from_serving(tmp_path: Path, clock_s: float, refusal: str) -> None:
    """Between two starts to 1970 or 2038: what was committed boots, a release is refused; it is taken in time."""
    device = Killed(device_config(tmp_path), several())
    device.run(1, "committed")
    device.clock_s = clock_s
    device.run(2, refusal)
    assert [found.release for found in device.resolved()] == [1]
    device.clock_s = None
    device.run(2, "committed")
    assert [found.release for found in device.resolved()] == [2, 1]


def files_below(folder: Path) -> list[str]:
    """Names of every file."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
