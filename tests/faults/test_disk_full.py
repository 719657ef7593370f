"""A disk that is full at any step of a deployment, and a real one: the release that runs is never touched."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from edge_client.agent import Agent
from edge_client.disk import Disk
from edge_client.factory import write_factory
from edge_client.installed import resolve
from edge_protocol import messages as m
from edge_protocol.transport.memory import MemoryTransport
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.test_deltas import moved
from tests.edge_client.test_factory import release_of
from tests.fakes.small_centre import artifact_files, signed_fleet
from tests.faults.killed_agent import SPEC, TRAINER

QUICK_STRIDE = 5
TINY = 4 << 20


class FullDisk(Disk):
    """Refuses every step that needs room, from one on, until it is freed; counts them.

    Attributes:
        steps: that needed room so far.
        full_at: the first one that is refused; -1 for none.
    """

    def __init__(self) -> None:
        self.steps, self.full_at = 0, -1

    def open(self, path: Path) -> BinaryIO:
        """Open; a new name takes room."""
        if not path.exists():
            self._take_room()
        return super().open(path)

    def write(self, file: BinaryIO, data: bytes, at: int) -> None:
        """Write half of it where the rest does not fit."""
        try:
            self._take_room()
        except OSError:
            super().write(file, data[: len(data) // 2], at)
            raise
        super().write(file, data, at)

    def truncate(self, file: BinaryIO, size: int) -> None:
        """Change the size."""
        self._take_room()
        super().truncate(file, size)

    def sync(self, file: BinaryIO) -> None:
        """Sync: some file systems find room only now."""
        self._take_room()
        super().sync(file)

    def rename(self, path: Path, to: Path) -> None:
        """Rename."""
        self._take_room()
        super().rename(path, to)

    def _mkdir(self, path: Path) -> None:
        self._take_room()
        super()._mkdir(path)

    def _take_room(self) -> None:
        if 0 <= self.full_at <= self.steps:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.steps += 1


class FullRig(DeviceRig):
    """A device on a disk that may be full."""

    def boot(self) -> None:
        """Start the agent."""
        self.disk = FullDisk()
        self.agent = Agent(
            self.config, lambda inbox, will: MemoryTransport(self.broker, inbox, will), self.trainer, self.disk
        )
        self.agent.core._releasing._retry.first_s = 0.05
        self.agent.start()

    def told(self) -> m.Deployment:
        """What the device last said about its deployment."""
        found: list[m.Deployment] = self.centre.of(m.Deployment)
        return found[-1] if found else m.Deployment(SPEC.name, 0, "", 0, "")

    @property
    def held_back(self) -> bool:
        """Whether the deployment, or the trust in what proves it, waits for room."""
        return self.told().state == "paused" or bool(self.agent._drops["trust-unwritten"])

    def booting(self) -> list[int]:
        """Releases that the disk would boot now."""
        state = Path(self.config.state_dir)
        whole, _ = resolve(state / SPEC.name, state / "blobs", spec=SPEC, tier="nano", root=signed_fleet().root)
        return [found.release for found in whole]

    def reach(self, release: int) -> None:
        """Turn until a release is committed, and told to be."""
        self.until(lambda: self.told().state == "committed" and self.told().running == release, f"release {release}")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The state directory of a device on release 1, and how many steps a deployment of release 2 takes."""
    folder = tmp_path_factory.mktemp("installed")
    rig = FullRig(device_config(folder), trainer=TRAINER)
    rig.centre.release(1, {"nano": artifact_files()})
    rig.reach(1)
    rig.close()
    shutil.copytree(folder / "state", folder / "before")
    rig = FullRig(rig.config, trainer=TRAINER)
    begun = rig.disk.steps
    rig.centre.release(2, {"nano": moved(artifact_files())}, base=artifact_files())
    rig.reach(2)
    rig.close()
    return folder / "before", rig.disk.steps - begun


def full_at(step: int, before: Path, folder: Path) -> None:
    """Run a deployment on a disk that is full from a step on; then free it."""
    shutil.rmtree(folder / "state", ignore_errors=True)
    shutil.copytree(before, folder / "state")
    rig = FullRig(device_config(folder), trainer=TRAINER)
    try:
        rig.disk.full_at = rig.disk.steps + step
        rig.centre.release(2, {"nano": moved(artifact_files())}, base=artifact_files())
        rig.until(lambda: rig.held_back or rig.told().running == 2, "a pause")
        if rig.held_back:
            assert rig.told().state != "paused" or "No space left" in rig.told().reason
            assert rig.told().running == rig.agent.core.running.release == 1
            assert 1 in rig.booting()
            answered = rig.agent.inference.counters.answered
            rig.until(lambda: rig.agent.inference.counters.answered > answered, "answers on a full disk")
        rig.disk.full_at = -1
        rig.reach(2)
        assert rig.booting() == [2, 1]
        assert not list((folder / "state").rglob("*.tmp"))
    finally:
        rig.close()


@pytest.mark.timeout(600)
def test_a_disk_that_is_full_at_some_step_pauses_the_deployment(installed: tuple[Path, int], tmp_path: Path) -> None:
    """A sample of the steps; the slow suite takes every one."""
    before, steps = installed
    for step in range(0, steps, QUICK_STRIDE):
        full_at(step, before, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_disk_that_is_full_at_any_step_pauses_the_deployment(installed: tuple[Path, int], tmp_path: Path) -> None:
    """Whichever step is refused: told with the reason, frames answered, and gone on with when there is room."""
    before, steps = installed
    for step in range(steps):
        full_at(step, before, tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A real file system of a few MB; the test is skipped where none can be mounted."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TINY}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def ballast(folder: Path) -> Iterator[None]:
    """Fill a file system to its last byte."""
    with (folder / "ballast").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
    try:
        yield
    finally:
        (folder / "ballast").unlink()


@pytest.mark.timeout(300)
def test_a_full_file_system_keeps_no_device_from_serving(tiny: Path, tmp_path: Path) -> None:
    """Filled to the last byte, the device boots, serves, says why it waits; with room again it takes the release."""
    config = device_config(tmp_path, state_dir=str(tiny))
    rig = FullRig(config, trainer=TRAINER)
    rig.centre.release(1, {"nano": artifact_files()})
    rig.reach(1)
    rig.close()
    with ballast(tiny):
        again = FullRig(config, rig.broker, TRAINER)
        assert again.agent.core.running.release == 1
        again.centre.release(2, {"nano": artifact_files(seed=1)})
        again.until(lambda: "No space left" in again.told().reason, "word of the full disk", within_s=120)
        answered = again.agent.inference.counters.answered
        again.until(lambda: again.agent.inference.counters.answered > answered + 20, "answers on a full disk")
    again.reach(2)
    again.close()


@pytest.mark.timeout(300)
def test_a_new_device_on_a_full_file_system_serves_its_factory_model(tiny: Path, tmp_path: Path) -> None:
    """With nothing of its own and no room for anything it answers frames, and says what it could not keep."""
    write_factory(tmp_path / "factory", *release_of(3))
    with ballast(tiny):
        rig = FullRig(device_config(tmp_path, state_dir=str(tiny), factory=str(tmp_path / "factory")))
        assert rig.agent.core.running.release == 3
        rig.until(lambda: rig.agent.inference.counters.answered > 20, "answers on a full disk")
        rig.until(lambda: "drop:state-in-memory" in rig.centre.of(m.DeviceState)[-1].counts, "a state that says so")
        rig.close()
