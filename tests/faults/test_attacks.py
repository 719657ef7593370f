"""Attacks that are not on metadata, each by its name, with the error that it meets: the table of docs/security.md."""

from __future__ import annotations

import lzma
import re
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from devices.runners.payload import places, read_payload
from edge_client import effects as e
from edge_client.core import Remembered
from edge_client.offers import Running
from edge_client.pace import Pace
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.delta import FILTERS, MAGIC, apply_delta, make_delta
from edge_protocol.effects import Drop
from edge_protocol.errors import DeploymentError, DigestError, IncompatibleError, ProtocolError, RemoteProtocolError
from edge_protocol.ids import FleetId
from edge_protocol.manifest import Delta, ReleaseManifest, decode_manifest, encode_manifest
from edge_protocol.topics import ChunkTopic, Topics
from export.golden import check_golden
from tests.edge_client.core_driver import SPEC, Driver, artifact, signed
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.test_deltas import moved
from tests.edge_client.test_fetcher import DATA, Rig
from tests.fakes.small_centre import FLEET, artifact_files, manifest_of, signed_fleet
from tests.faults.model_device import ModelDevice, model_fleet
from tests.fuzz.targets import template
from tests.vectors.make import manifest

ROOT = Path(__file__).resolve().parents[2]
GIANT = 1 << 40


def running(release: int) -> Driver:
    """A brain that is online and runs a release."""
    driver = Driver(Remembered(running=Running(release, artifact(release).weights.sha256)))
    driver.do(e.Linked())
    return driver


def peak_mb(call: object, error: type[Exception]) -> float:
    """What a refused call allocated at most, in MB."""
    tracemalloc.start()
    try:
        with pytest.raises(error):
            call()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_wrong_hardware_a_release_for_other_boards_is_rejected() -> None:
    """It has nothing for this tier; the device says which tiers it is for, fetches nothing and runs on."""
    driver = running(1)
    driver.say(signed(2, tier="base"))
    told = driver.sent(m.Deployment)[-1]
    assert (told.state, told.running) == ("rejected", 1)
    assert "no artifact for tier 'nano'; it has base" in told.reason
    assert not driver.all(e.Fetch)


def test_retained_ghost_an_old_release_left_on_a_topic_is_dropped() -> None:
    """Whatever a broker still retains, on either topic and at every connection, is dropped as old-release."""
    driver = running(5)
    for _ in range(3):
        driver.do(e.Unlinked())
        driver.do(e.Linked())
        for ghost in (signed(3), signed(4)):
            assert [drop.reason for drop in driver.say(ghost) if isinstance(drop, Drop)] == ["old-release"]
    assert (driver.core.stage, driver.core.running.release) == ("committed", 5)


def test_replay_an_old_release_is_dropped_even_by_a_device_that_lost_its_pointers(tmp_path: Path) -> None:
    """Signed once, worthless now: the floor stands though both pointers are gone."""
    made = {n: ReleaseManifest(FLEET, n, SPEC, 1.0, (artifact(n),), {}) for n in (5, 6)}
    releases = {counter: model_fleet().release(manifest) for counter, manifest in made.items()}
    device = ModelDevice(tmp_path)
    device.connect(up=True)
    for counter, release in releases.items():
        device.offer(release)
        for name in ("template", f"weights {counter}", f"golden {counter}"):
            device.chunk(Topics(FLEET).chunk(cut(name.encode())[0].sha256, 0), name.encode())
        device.feed(device.installer.answer(well=True))
        device.trained(well=True)
        while device.installer.asked:
            device.feed(device.installer.answer(well=True))
    assert device.running == 6
    for pointer in ("current.json", "previous.json"):
        (tmp_path / "vehicle" / pointer).unlink()
    again = ModelDevice(tmp_path)
    assert again.running == 0
    again.connect(up=True)
    again.offer(releases[5])
    assert again.carry._hands.drops["old-release"] == 1
    again.offer(releases[6])
    assert again.core.stage in {"fetching", "staged"}
    for each in (device, again):
        each.fetcher.close()


def test_corrupt_chunk_is_counted_and_fetched_again(tmp_path: Path) -> None:
    """A broker that spoils each chunk once costs time: bad-chunk, and the bytes on the disk are the signed ones."""
    rig, spoilt = DeviceRig(device_config(tmp_path)), set[str]()

    def once(topic: str, payload: bytes) -> list[bytes]:
        if "/blob/" in topic and topic not in spoilt:
            spoilt.add(topic)
            return [payload[:-1] + bytes([payload[-1] ^ 1]), payload + b"more", b""]
        return [payload]

    rig.broker.fault = once
    rig.agent.carry._hands.fetcher._sources._pace = Pace(timeout_s=0.2)
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
    assert rig.agent._drops["bad-chunk"] >= len(spoilt)
    rig.close()


def test_corrupt_delta_costs_one_whole_fetch(tmp_path: Path) -> None:
    """A signed delta that leads to other weights is delta-failed; the whole payload comes, once."""
    rig, first = DeviceRig(device_config(tmp_path)), artifact_files()
    rig.centre.release(1, {"nano": first})
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
    made, blobs = manifest_of(2, {"nano": moved(first)}, spec=rig.agent.spec, base=first)
    lie = make_delta(first.weights, moved(moved(first)).weights)
    assert lie is not None
    ref, chunks = cut(lie, 16 * 1024)
    (honest,) = made.artifacts
    artifact = msgspec.structs.replace(honest, deltas=(Delta(honest.deltas[0].base, ref),))
    for each, parts in (blobs | {ref: chunks}).items():
        rig.centre.blob(each, parts)
    offer = m.ReleaseOffer(signed_fleet().release(msgspec.structs.replace(made, artifacts=(artifact,))))
    rig.centre.metadata(signed_fleet().files())
    rig.centre.say(rig.centre.topics.release(rig.agent.spec.task_id), offer, retain=True)
    rig.until(lambda: rig.agent.core.running.release == 2, "release 2")
    assert rig.agent._drops["delta-failed"] == 1
    rig.close()


def test_zip_bomb_a_delta_that_unpacks_to_more_is_refused_before_it_is_unpacked() -> None:
    """A few kB that would become 64 MB beside a base of 2 kB: DigestError, in the memory of a dictionary."""
    base = save({"w": np.zeros(1000, np.float16)})
    bomb = MAGIC + lzma.compress(bytes(64 << 20), lzma.FORMAT_RAW, filters=FILTERS)
    assert len(bomb) < 20_000
    assert make_delta(base, base) is not None
    assert peak_mb(lambda: apply_delta(base, bomb), DigestError) < 4


@pytest.mark.parametrize("shape", [[GIANT], [GIANT, GIANT], [0, 2**62], [2**31, 2**33]], ids=str)
def test_zip_bomb_a_header_that_claims_a_giant_tensor_allocates_nothing(shape: list[int]) -> None:
    """Weights, golden answers, heads and the base of a delta: refused by what is there, not by what is claimed."""
    said = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * int(np.prod([float(n) for n in shape]))]}
    header = msgspec.json.encode({"w": said})
    claims = len(header).to_bytes(8, "little") + header + bytes(64)
    endless = (1 << 62).to_bytes(8, "little") + b"{}"
    for file in (claims, endless):
        assert peak_mb(lambda file=file: read_payload(file), IncompatibleError) < 1
        assert peak_mb(lambda file=file: check_golden(None, file), DeploymentError) < 1  # type: ignore[arg-type]
        assert peak_mb(lambda file=file: HeadWeights.from_bytes(file), IncompatibleError) < 1
        assert peak_mb(lambda file=file: apply_delta(file, MAGIC + bytes(64)), DigestError) < 1


@pytest.mark.parametrize(
    "size", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"], ids=bytes.hex
)
def test_zip_bomb_a_message_that_claims_giant_lists_allocates_nothing(size: bytes) -> None:
    """Four thousand million elements in five bytes are malformed, in messages and in manifests."""
    assert peak_mb(lambda: codec.decode(b"RC\x01\x92" + size, kind="release", fleet="sim"), RemoteProtocolError) < 1
    assert peak_mb(lambda: decode_manifest(b"\x98" + size), RemoteProtocolError) < 1


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "/etc/passwd", "a/b", "a\0b", "", "."])
def test_path_traversal_no_name_leads_out_of_a_folder(name: str) -> None:
    """Blobs, devices, tasks and a template's external files: names that are paths are refused where they are read."""
    topics = Topics(FleetId("sim"))
    for topic in (f"rc/v1/sim/d/{name}/up/state", f"rc/v1/sim/all/release/{name}", f"rc/v1/sim/blob/{name}/0"):
        with pytest.raises(RemoteProtocolError):
            topics.parse(topic)
    with pytest.raises(ProtocolError):
        BlobRef(name.ljust(64, "x"), 1, 1, bytes(32))
    tree = msgspec.msgpack.decode(encode_manifest(manifest()))
    tree[2]["name"] = name
    with pytest.raises(RemoteProtocolError, match="task"):
        decode_manifest(msgspec.msgpack.encode(tree))
    assert places(template(b"w.bin"))["w"].file == "w.bin"
    with pytest.raises(IncompatibleError, match="none of ours"):
        places(template(name.encode()))


def test_slow_retrieval_a_broker_that_withholds_chunks_holds_back_nothing_else(tmp_path: Path) -> None:
    """The device serves on, asks the server for what is lost, and takes the next release in its place."""
    rig = DeviceRig(device_config(tmp_path))
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
    rig.agent.carry._hands.fetcher._timeout_s = 0.05
    withheld = cut(artifact_files(seed=1).weights)[0].sha256
    rig.broker.fault = lambda topic, payload: [] if withheld in topic else [payload]
    rig.centre.release(2, {"nano": artifact_files(seed=1)})
    rig.until(lambda: rig.centre.of(m.Need), "a need")
    assert rig.centre.of(m.Need)[-1].sha256 == withheld
    assert rig.centre.of(m.Deployment)[-1].state == "fetching"
    answered = rig.agent.inference.counters.answered
    rig.until(lambda: rig.agent.inference.counters.answered > answered + 5, "answers meanwhile")
    rig.centre.release(3, {"nano": moved(artifact_files())})
    rig.until(lambda: rig.agent.core.running.release == 3, "release 3")
    rig.close()


def test_endless_data_no_chunk_longer_than_signed_reaches_the_disk(tmp_path: Path) -> None:
    """A chunk with more behind it is another chunk: bad-chunk; its part on the disk never grows beyond its size."""
    rig = Rig(tmp_path)
    ref = rig.publish(DATA)
    rig.fetch(ref)
    for index in range(ref.chunks):
        rig.said += rig.fetcher.chunk(ChunkTopic(ref.sha256, index), DATA, rig.clock.now)
    assert {drop.reason for drop in rig.all(Drop)} == {"bad-chunk"}
    assert (tmp_path / ref.sha256 / "part").stat().st_size == 0
    rig.fetcher.close()


def test_the_table_of_attacks_names_tests_that_exist() -> None:
    """Every row under "Attacks" in docs/security.md says which test shows it, in the files above it or in its own."""
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8").partition("\n## Attacks\n")[2].partition("\n## ")[0]
    above, _, _ = text.partition("\n| ")
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 30
    for row in rows:
        files = re.findall(r"tests/[\w/]+\.py", row) or re.findall(r"tests/[\w/]+\.py", above)
        known = {name for file in files for name in re.findall(r"def (test_\w+)\(", (ROOT / file).read_text("utf-8"))}
        named = set(re.findall(r"\b(test_\w+)\b(?!\.py)", row))
        assert named or files[0] in row, row
        assert named <= known, row


def test_the_task_of_a_release_is_the_device_s_own() -> None:
    """A signed release of another task, label space or fleet is rejected with both named."""
    driver = running(1)
    for offer, reason in (
        (signed(2, spec=load_task("clinic")), "'clinic'"),
        (signed(3, fleet="other"), "fleet 'other'"),
    ):
        driver.say(offer)
        assert reason in driver.sent(m.Deployment)[-1].reason
        assert driver.sent(m.Deployment)[-1].state == "rejected"
