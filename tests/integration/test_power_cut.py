"""A power cut at any step of a whole deployment leaves a device that serves a signed release, whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edge_client.agent import Agent
from edge_client.installed import HeadChoice, InstalledStore, resolve
from edge_client.trust_store import TrustStore
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol.transport.memory import MemoryTransport
from tests.edge_client.device_rig import NO_TRAINER, DeviceRig, device_config
from tests.edge_client.test_deltas import moved
from tests.fakes.recording_disk import RecordingDisk, power_cuts
from tests.fakes.small_centre import artifact_files, trusted_root

SPEC = load_task("vehicle")
LEAST_STATES = 200


class RecordedRig(DeviceRig):
    """A device whose every step on the disk is recorded."""

    def boot(self) -> None:
        """Start the agent on a recording disk."""
        state = Path(self.config.state_dir)
        state.mkdir()
        self.disk = RecordingDisk(state)
        self.agent = Agent(
            self.config, lambda inbox, will: MemoryTransport(self.broker, inbox, will), self.trainer, self.disk
        )
        self.agent.start()

    def reach(self, release: int) -> None:
        """Turn until a release serves; note that from here on it must survive."""
        self.until(lambda: self.agent.core.running.release == release, f"release {release}")
        self.disk.mark(f"release {release}")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordingDisk:
    """Three deployments of a real agent: whole, by delta, whole again; with a head, and with old blobs collected."""
    folder = tmp_path_factory.mktemp("recorded")
    rig = RecordedRig(device_config(folder), trainer=NO_TRAINER)
    first = artifact_files()
    rig.centre.release(1, {"nano": first})
    rig.reach(1)
    head = HeadWeights(np.ones((6, 64), np.float32), np.zeros(6, np.float32))
    rig.agent._installed.save_head(1, head, HeadChoice(chosen="personal", shared={}, personal={}, n_train=9, n_valid=3))
    rig.disk.mark("head")
    rig.centre.release(2, {"nano": moved(first)}, base=first)
    rig.reach(2)
    rig.centre.release(3, {"nano": artifact_files(seed=1)})
    rig.reach(3)
    rig.close()
    return rig.disk


def lay_out(files: dict[str, bytes], folder: Path) -> Path:
    """Write a state down as a device's state folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.mark.timeout(600)
def test_after_every_power_cut_the_resolver_finds_a_signed_release_whole(
    recorded: RecordingDisk,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once a release has served, it or a newer one is found, and every byte of it is the signed manifest's."""
    seen: set[int] = set()
    tried, root = 0, trusted_root().encode()
    for done, files in power_cuts(recorded.steps):
        tried += 1
        floor = max((n for n in (1, 2, 3) if recorded.marks[f"release {n}"] <= done), default=0)
        key = hash((floor, recorded.marks["head"] <= done < recorded.marks["release 2"], frozenset(files.items())))
        if key in seen:
            continue
        seen.add(key)
        state = lay_out(files, tmp_path / "state")
        whole, skipped = resolve(state / SPEC.name, state / "blobs", spec=SPEC, tier="nano", root=root)
        newest = whole[0].release if whole else 0
        assert TrustStore(state / SPEC.name, root).release_floor >= floor
        assert newest >= floor, f"after step {done} of {len(recorded.steps)}: {newest}, not {floor}; {skipped}"
        for found in whole:
            for ref in (found.artifact.template, found.artifact.weights, found.artifact.golden):
                assert sha256(files[f"blobs/{ref.sha256}/data"]).hexdigest() == ref.sha256
        store = InstalledStore(state / SPEC.name)
        assert set(store.attempts()) <= {1, 2, 3}
        kept = store.load_head(1, SPEC)
        assert kept is not None or not recorded.marks["head"] <= done < recorded.marks["release 2"]
    told = f"{tried} power cuts after {len(recorded.steps)} steps, {len(seen)} distinct states of the disk"
    record_property("power cuts", told)
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    assert len(seen) >= LEAST_STATES


def test_the_model_finds_a_missing_sync(tmp_path: Path) -> None:
    """A write that forgets to sync its file, or its folder, is caught: the states show the file empty, or gone."""

    class Hasty(RecordingDisk):
        def __init__(self, root: Path, forgets: str) -> None:
            super().__init__(root)
            self.forgets = forgets

        def sync(self, file: object) -> None:
            if self.forgets != "file":
                super().sync(file)  # type: ignore[arg-type]

        def sync_folder(self, folder: Path) -> None:
            if self.forgets != "folder":
                super().sync_folder(folder)

    def ends(disk: RecordingDisk) -> set[bytes | None]:
        disk.write_atomic(tmp_path / "pointer", b"new")
        last = len(disk.steps)
        found = {files.get("pointer") for done, files in power_cuts(disk.steps) if done == last}
        (tmp_path / "pointer").unlink()
        return found

    assert ends(RecordingDisk(tmp_path)) == {b"new"}
    assert b"" in ends(Hasty(tmp_path, "file"))
    assert None in ends(Hasty(tmp_path, "folder"))
