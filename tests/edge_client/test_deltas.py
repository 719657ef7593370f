"""A whole agent takes a release by its delta, and by the whole payload where the delta leads nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from edge_client import effects as e
from edge_client.core import Remembered
from edge_client.offers import Running
from edge_protocol.blobs import cut
from edge_protocol.effects import Drop
from edge_protocol.messages import Deployment
from tests.edge_client.core_driver import Driver, artifact, signed
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.small_centre import Files, artifact_files


def linked(running: int) -> Driver:
    """A brain that is online and runs a release."""
    driver = Driver(Remembered(running=Running(running, artifact(running).weights.sha256)))
    driver.do(e.Linked())
    return driver


def asked_for(effects: list[e.Effect]) -> list[str]:
    """Hashes that are to be fetched."""
    return [x.ref.sha256 for x in effects if isinstance(x, e.Fetch)]


def test_a_device_on_the_base_fetches_the_delta_instead_of_the_weights() -> None:
    """Template, golden answers and delta; then the weights are made of it, and the release goes its way."""
    driver, files = linked(1), artifact(2, base=1)
    delta = files.deltas[0].blob.sha256
    asked = asked_for(driver.say(signed(2, base=1)))
    assert set(asked) == {files.template.sha256, delta, files.golden.sha256}
    for sha in asked:
        driver.do(e.Fetched(sha))
    assert driver.last(e.Patch) == e.Patch(artifact(1).weights.sha256, delta, files.weights)
    assert driver.core.stage == "fetching"
    driver.do(e.Fetched(files.weights.sha256))
    assert driver.core.stage == "staged"


def test_a_device_on_another_release_fetches_the_weights() -> None:
    """A delta from what it does not run is no use to it."""
    driver = linked(1)
    assert artifact(3).weights.sha256 in asked_for(driver.say(signed(3, base=2)))


def test_a_delta_that_leads_nowhere_costs_one_whole_fetch() -> None:
    """Damaged, or for another base: counted, the weights are fetched, the delta is not tried again."""
    driver, files = linked(1), artifact(2, base=1)
    for sha in asked_for(driver.say(signed(2, base=1))):
        driver.do(e.Fetched(sha))
    effects = driver.do(e.PatchFailed(files.weights.sha256, "other weights came out"))
    assert effects == [Drop("delta-failed", "other weights came out"), e.Fetch(files.weights)]
    driver.do(e.Fetched(files.weights.sha256))
    assert driver.core.stage == "staged"
    assert len(driver.all(e.Patch)) == 1


def test_a_delta_that_does_not_come_is_not_waited_for_twice() -> None:
    """The second attempt fetches the whole payload."""
    driver, files = linked(1), artifact(2, base=1)
    driver.say(signed(2, base=1))
    driver.do(e.FetchFailed(files.deltas[0].blob.sha256, "no", disk=False))
    seen = len(driver.effects)
    driver.until(lambda: driver.core.stage == "fetching")
    assert files.weights.sha256 in asked_for(driver.effects[seen:])


def sha(data: bytes) -> str:
    """Hash of some bytes."""
    return cut(data)[0].sha256


def moved(files: Files) -> Files:
    """The same student, one fp16 number further in every bias and in the head: its golden answers still hold."""
    tensors: dict[str, Any] = load(files.weights)
    near = {n: np.nextafter(a, np.float16(1)) if a.dtype == np.float16 else a for n, a in tensors.items()}
    return Files(files.template, save(near), files.golden, files.parameters)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeviceRig]:
    """An agent that runs release 1."""
    made = DeviceRig(device_config(tmp_path))
    made.centre.release(1, {"nano": artifact_files()})
    made.until(lambda: made.agent.core.running.release == 1, "release 1")
    yield made
    made.close()


def blob(rig: DeviceRig, data: bytes) -> Path:
    """Where the agent keeps these bytes."""
    return Path(rig.config.state_dir) / "blobs" / sha(data) / "data"


def test_the_delta_is_all_that_is_fetched(rig: DeviceRig) -> None:
    """The new weights are on the disk with their own hash, though the broker holds no chunk of them."""
    old, new = artifact_files(), moved(artifact_files())
    chunks = [topic for topic in rig.broker.retained if "/blob/" in topic]
    rig.centre.release(2, {"nano": new}, base=old)
    for topic in [t for t in rig.broker.retained if sha(new.weights) in t]:
        del rig.broker.retained[topic]
    brought = sum(len(p) for t, p in rig.broker.retained.items() if "/blob/" in t and t not in chunks)
    rig.until(lambda: rig.agent.core.running.release == 2, "release 2")
    assert blob(rig, new.weights).read_bytes() == new.weights
    assert brought < 0.2 * len(new.weights)
    assert rig.agent._drops["delta-failed"] == 0
    rig.until(lambda: rig.centre.of(Deployment)[-1].weights == sha(new.weights), "report of the new hash")


def test_a_damaged_base_costs_one_whole_fetch(rig: DeviceRig) -> None:
    """The running release's file was spoilt on the disk after it was loaded."""
    old, new = artifact_files(), moved(artifact_files())
    spoilt = bytearray(old.weights)
    spoilt[-3] ^= 0xFF
    blob(rig, old.weights).write_bytes(spoilt)
    rig.centre.release(2, {"nano": new}, base=old)
    rig.until(lambda: rig.agent.core.running.release == 2, "release 2")
    assert rig.agent._drops["delta-failed"] == 1
    assert blob(rig, new.weights).read_bytes() == new.weights
