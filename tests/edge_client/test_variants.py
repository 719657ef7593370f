"""Which of a release's artifacts a device takes, and what it does when a variant is no good on its board."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_client import effects as e
from edge_client.board import profile
from edge_client.core import Remembered
from edge_client.installed import InstalledStore, resolve
from edge_client.offers import Installed
from edge_client.plan_effects import Planned
from edge_client.releasing import Running
from edge_protocol import messages as m
from edge_protocol.blobs import cut
from edge_protocol.effects import Drop
from edge_protocol.manifest import Artifact, encode_manifest
from tests.edge_client.core_driver import PROOF, SPEC, Driver, artifact, blob, signed
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.boards import fake_board
from tests.fakes.small_centre import Files, artifact_files, int8_files, signed_fleet, spoilt

INT8 = "int8-cpu"


def hashes(files: Artifact) -> set[str]:
    """Of the three files that a device needs."""
    return {files.template.sha256, files.weights.sha256, files.golden.sha256}


def asked(effects: list[e.Effect]) -> set[str]:
    """Hashes that are to be fetched."""
    return {x.ref.sha256 for x in effects if isinstance(x, e.Fetch)}


def linked(*variants: str, running: str = "", release: int = 0) -> Driver:
    """A device that is online and takes variants."""
    driver = Driver(Remembered(running=Running(release, running)), variants=variants)
    driver.do(e.Linked())
    return driver


@pytest.mark.parametrize(
    ("precision", "runner", "variant"),
    [
        ("plain", "auto", ""),
        ("plain", "tensorrt", ""),
        ("int8", "auto", INT8),
        ("int8", "onnxruntime", INT8),
        ("int8", "tensorrt", "int8-trt"),
    ],
)
def test_a_device_fetches_the_files_of_one_variant_alone(
    precision: str, runner: str, variant: str, tmp_path: Path
) -> None:
    """Its precision and its runner say which; of the others not a byte."""
    config = device_config(tmp_path, precision=precision, runner=runner)
    variants = profile(config, SPEC, fake_board("raspberry-pi-5", tmp_path / "board")).variants
    offer = signed(1, variants=("int8-trt", INT8))
    assert asked(linked(*variants).say(offer)) == hashes(artifact(1, variant=variant))


def test_a_board_with_a_gpu_takes_int8_for_tensorrt_by_itself(tmp_path: Path) -> None:
    """As it serves with TensorRT by itself."""
    config = device_config(tmp_path, precision="int8")
    assert profile(config, SPEC, fake_board("jetson-orin-nano-r35.5", tmp_path / "board")).variants == ("int8-trt",)


def test_without_its_variant_a_device_takes_the_plain_artifact() -> None:
    """A release that has none for it, or only one of another kind, is as good as before."""
    for offer in (signed(1), signed(1, variants=("int8-trt",))):
        assert asked(linked(INT8).say(offer)) == hashes(artifact(1))


def test_a_release_of_variants_alone_is_refused() -> None:
    """There must be something that every device of the tier can run."""
    manifest = signed(1, variants=(INT8,)).manifest
    alone = msgspec.structs.replace(manifest, artifacts=(manifest.artifact_for("nano", (INT8,)),))
    driver = linked(INT8)
    driver.say(e.Offered(encode_manifest(alone), alone, PROOF))
    assert driver.sent(m.Deployment)[-1].state == "rejected"
    assert not driver.all(e.Fetch)


@pytest.mark.parametrize("at", ["check", "probation"])
def test_a_variant_that_is_no_good_here_gives_way_to_the_plain_artifact(at: str) -> None:
    """Wrong golden answers or a failed probation: told, let go, and the plain files come instead, to the end."""
    driver = linked(INT8)
    offer = signed(1, variants=(INT8,))
    driver.say(offer)
    driver.fetch(1, INT8)
    if at == "probation":
        driver.do(e.Checked(1))
        driver.do(e.Trained(driver.last(e.Train).job, None))
        driver.do(Planned(1))
    effects = driver.do(e.CheckFailed(1, "off") if at == "check" else e.Failed(1, "off"))
    assert effects[0] == Drop("variant-failed", f"{INT8}: off")
    assert e.Discard(1) in effects
    assert asked(effects) == hashes(artifact(1))
    assert driver.core.stage == "fetching"
    driver.fetch(1)
    driver.do(e.Checked(1))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(1))
    driver.do(e.Passed(1))
    driver.do(Installed(1))
    assert driver.core.running == Running(1, artifact(1).weights.sha256)
    assert driver.sent(m.Deployment)[-1].weights == artifact(1).weights.sha256
    assert driver.say(offer) == [], "the same release again changes nothing"


def test_a_plain_artifact_that_fails_after_its_variant_ends_the_deployment() -> None:
    """There is nothing left to fall back on but what runs."""
    driver = linked(INT8)
    driver.say(signed(1, variants=(INT8,)))
    driver.fetch(1, INT8)
    driver.do(e.CheckFailed(1, "off"))
    driver.fetch(1)
    assert e.Discard(1) in driver.do(e.CheckFailed(1, "off as well"))
    assert driver.core.stage == "rolled-back"


@pytest.mark.parametrize("runs", ["", INT8])
def test_either_variant_of_the_running_release_is_kept(runs: str) -> None:
    """After another setting of `precision` a restart fetches nothing; the next release comes in the new variant."""
    driver = linked(*(() if runs else (INT8,)), running=artifact(3, variant=runs).weights.sha256, release=3)
    assert driver.say(signed(3, variants=(INT8,))) == []
    assert asked(driver.say(signed(4, variants=(INT8,)))) == hashes(artifact(4, variant="" if runs else INT8))


def blobs_of(rig: DeviceRig) -> set[str]:
    """Hashes of the files that the agent has."""
    return {path.parent.name for path in (Path(rig.config.state_dir) / "blobs").glob("*/data")}


def test_an_agent_serves_int8_and_after_a_restart_again(tmp_path: Path) -> None:
    """Not a byte of the plain artifact is on its disk; the server is told which weights answer."""
    rig = DeviceRig(device_config(tmp_path, precision="int8"))
    try:
        rig.centre.release(1, {"nano": artifact_files()}, int8=int8_files())
        rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
        weights = cut(int8_files().weights)[0].sha256
        assert blobs_of(rig) == {cut(part)[0].sha256 for part in parts(int8_files())}
        rig.until(lambda: rig.centre.of(m.Deployment)[-1].weights == weights, "report of the variant's hash")
        rig.close()
        rig.boot()
        assert rig.agent.core.running == Running(1, weights)
    finally:
        rig.close()


def test_an_agent_whose_processor_gets_int8_wrong_serves_the_plain_artifact(tmp_path: Path) -> None:
    """Golden answers are off, as without VNNI: told, dropped, and the same release is there all the same."""
    rig = DeviceRig(device_config(tmp_path, precision="int8"))
    try:
        rig.centre.release(1, {"nano": artifact_files()}, int8=spoilt(int8_files(), golden=3.0))
        rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
        assert rig.agent.core.running.weights == cut(artifact_files().weights)[0].sha256
        assert rig.agent._drops["variant-failed"] == 1
        assert blobs_of(rig) == {cut(part)[0].sha256 for part in parts(artifact_files())}
    finally:
        rig.close()


def parts(files: Files) -> tuple[bytes, bytes, bytes]:
    """The three files that a device needs."""
    return files.template, files.weights, files.golden


def test_the_pointer_says_which_variant_a_restart_loads(tmp_path: Path) -> None:
    """The files on the disk decide, not the configuration of today."""
    folder, blobs = tmp_path / "vehicle", tmp_path / "blobs"
    files = artifact(1, variant=INT8)
    for ref, text in ((files.template, "t"), (files.weights, "w"), (files.golden, "g")):
        assert ref == blob(f"{INT8} {text} 1")
        (blobs / ref.sha256).mkdir(parents=True)
        (blobs / ref.sha256 / "data").write_bytes(f"{INT8} {text} 1".encode())
    InstalledStore(folder).commit(1, files, *signed_fleet().prove(signed(1, variants=(INT8,)).manifest))
    whole, skipped = resolve(folder, blobs, spec=SPEC, tier="nano", root=signed_fleet().root)
    assert ([found.artifact for found in whole], skipped) == ([files], [])
