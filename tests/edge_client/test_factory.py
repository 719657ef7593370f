"""A factory model: a folder that is only read, the last resort of a device with nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_client.agent import Agent
from edge_client.factory import proof_of, write_factory
from edge_models.tasks import load_task
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import ConfigError, IncompatibleError
from edge_protocol.ids import TaskId
from edge_protocol.task import Tier
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.trust import Proof
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.test_deltas import moved
from tests.fakes.signed_fleet import SignedFleet
from tests.fakes.small_centre import artifact_files, manifest_of, signed_fleet
from tests.fakes.waiting import wait_for


def release_of(counter: int, seed: int = 0) -> tuple[bytes, Proof, Tier | None, Callable[[BlobRef], bytes]]:
    """A release, why it is trusted, the tier, and what reads its files."""
    made, blobs = manifest_of(counter, {"nano": artifact_files(seed=seed)}, spec=load_task("vehicle"))
    manifest, fleet = signed_fleet().release(made), signed_fleet()
    proof = proof_of(manifest, TaskId("vehicle"), fleet.files(), fleet.now)
    return manifest, proof, "nano", lambda ref: b"".join(blobs[ref])


def tree_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, and when it was written."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    """A factory model of release 3."""
    assert write_factory(tmp_path / "factory", *release_of(3)) == 3
    return tmp_path / "factory"


def until_answers(rig: DeviceRig) -> None:
    """Turn until frames are answered."""
    answered = rig.agent.inference.counters.answered
    rig.until(lambda: rig.agent.inference.counters.answered > answered, "answers")


class Unplugged(MemoryTransport):
    """A link that never comes up."""

    def start(self) -> None:
        """Stay down."""


def test_an_empty_device_boots_into_it_offline_and_never_writes_it(tmp_path: Path, factory: Path) -> None:
    """With no state and no link it serves, from the first frame, and the folder is the same afterwards."""
    before, config = tree_of(factory), device_config(tmp_path, factory=str(factory))
    agent = Agent(config, lambda inbox, will: Unplugged(MemoryBroker(), inbox, will))
    assert agent.core.running.release == 3
    agent.start()

    def served() -> bool:
        agent.turn()
        return agent.inference.counters.answered > 3

    wait_for(served, "answers")
    agent.close()
    assert not agent.inference.counters.swap_skipped
    assert tree_of(factory) == before


def test_releases_come_before_it_and_their_loss_leads_back_to_it(tmp_path: Path, factory: Path) -> None:
    """A delta from its weights is taken; when everything of the device's own is damaged, it serves again."""
    before, config = tree_of(factory), device_config(tmp_path, factory=str(factory))
    rig = DeviceRig(config)
    first, second = artifact_files(), moved(artifact_files())
    rig.centre.release(2, {"nano": artifact_files(seed=1)})
    rig.centre.release(4, {"nano": second}, base=first)
    rig.until(lambda: rig.agent.core.running.release == 4, "release 4")
    assert not rig.agent._drops["delta-failed"]
    rig.close()
    for data in (tmp_path / "state" / "blobs").glob("*/data"):
        data.write_bytes(b"damaged")
    alone = DeviceRig(config, MemoryBroker())
    assert alone.agent.core.running.release == 3
    until_answers(alone)
    alone.centre.release(3, {"nano": artifact_files(seed=1)})
    alone.until(lambda: alone.agent._drops["old-release"], "the refusal of what is below the floor")
    alone.centre.release(5, {"nano": artifact_files(seed=1)})
    alone.until(lambda: alone.agent.core.running.release == 5, "release 5")
    alone.close()
    assert tree_of(factory) == before


@pytest.mark.parametrize("damage", ["unsigned", "blob", "torn", "missing"])
def test_a_damaged_factory_model_does_not_run(tmp_path: Path, factory: Path, damage: str) -> None:
    """It is checked at every boot like any release; the device goes on without one, and is told so."""
    strange = {"trusted_root": SignedFleet().root.decode()} if damage == "unsigned" else {}
    config = device_config(tmp_path, factory=str(factory), **strange)
    pointer = factory / "vehicle" / "current.json"
    if damage == "blob":
        next(factory.glob("blobs/*/data")).write_bytes(b"damaged")
    elif damage == "torn":
        pointer.write_bytes(pointer.read_bytes()[:100])
    elif damage == "missing":
        pointer.unlink()
    rig = DeviceRig(config, MemoryBroker())
    assert rig.agent.core.running.release == 0
    assert rig.agent._drops["fallback"] == (damage != "missing")
    rig.close()


def test_a_folder_that_holds_one_is_not_written_again(factory: Path) -> None:
    """What boards came with never changes; a tier that the release does not have is refused."""
    manifest, proof, tier, read = release_of(9, seed=1)
    with pytest.raises(ConfigError, match="holds a factory model already"):
        write_factory(factory, manifest, proof, tier, read)
    with pytest.raises(IncompatibleError, match="no artifact for tier 'base'"):
        write_factory(factory.parent / "other", manifest, proof, "base", read)
    assert not os.path.lexists(factory.parent / "other")
