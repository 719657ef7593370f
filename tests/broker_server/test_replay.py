"""Rounds that are done again: the same bits, or the reason why not."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from broker_server.distil_job import read_job
from broker_server.distil_worker import main
from broker_server.records import RoundRecord
from broker_server.replay import Replay, replay
from broker_server.round_facts import find_round, manifest_of
from broker_server.round_manifest import MANIFEST, RoundManifest, decoded, encoded, outcomes
from broker_server.status import open_database
from broker_server.store.blobs import BlobFolder
from broker_server.workshop import worker_process
from edge_protocol.errors import NotReadyError
from edge_protocol.task import TIERS
from tests.fakes.round_state import SPEED, in_process, three_rounds

pytestmark = pytest.mark.timeout(600)
WITHIN_S = 250.0


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with rounds 0, 1 and 2; each test that spoils something puts it back."""
    return three_rounds(tmp_path_factory.mktemp("centre"))


def record_of(state: Path, number: int = 2) -> RoundRecord:
    """A round as the database has it."""
    database = open_database(state)
    try:
        return find_round(database, SPEED, number)
    finally:
        database.close()


def stored(state: Path, number: int = 2) -> RoundManifest:
    """A round's manifest."""
    found = manifest_of(state, record_of(state, number))
    assert found is not None
    return found


def with_manifest(state: Path, manifest: RoundManifest) -> RoundRecord:
    """The record of round 2 with another manifest."""
    return msgspec.structs.replace(record_of(state), manifest=BlobFolder(state / "blobs").put(encoded(manifest)))


def again(state: Path, number: int = 2) -> Replay:
    """Replay a round in this process."""
    return replay(state, record_of(state, number), in_process)


@contextmanager
def spoilt(path: Path) -> Iterator[None]:
    """Turn one bit of a file, and then turn it back."""
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield
    path.write_bytes(data)


@pytest.mark.parametrize("number", [0, 2])
def test_a_round_done_again_has_the_same_bits(state: Path, number: int) -> None:
    """The first release and a round with an aged report come out the same, file by file, score by score."""
    found = again(state, number)
    assert found.same
    assert found.environment == {}
    names = {pair.what for pair in found.outcomes}
    assert {f"{tier}/{what}" for tier in TIERS for what in ("weights.safetensors", "candidate scores")} <= names
    assert ("small/cohorts" in names) is bool(number)
    assert {name for name in names if "report/" in name} == ({"report/dev-0", "report/dev-1"} if number else set())


def test_the_manifest_says_what_a_round_depends_on(state: Path) -> None:
    """Reports with their rounds, the start of the training, packs, versions, settings; and not the salt."""
    manifest = stored(state)
    assert manifest.reports == {"dev-0": 2, "dev-1": 1}
    assert (manifest.release, manifest.proxy, manifest.settings.seed) == (2, record_of(state).proxy.sha256, 1)  # type: ignore[union-attr]
    assert set(manifest.base) == set(TIERS)
    names = {Path(name).name for name in manifest.inputs}
    assert {"job.json", "dev-0.report", "anchors.npz", "nano.safetensors", "nano.training.safetensors"} <= names
    assert {"roadcast", "torch", "numpy", "python", "machine", "device"} <= set(manifest.environment)
    assert read_job(state / "jobs" / "speed-2").salt not in encoded(manifest).decode()


def test_a_killed_worker_that_goes_on_leaves_the_same_bits(state: Path, tmp_path: Path) -> None:
    """Kill -9 in the middle of the second tier, a second process that goes on, and the manifest of the round itself."""
    job = tmp_path / "jobs" / "speed-2"
    shutil.copytree(state / "jobs" / "speed-2" / "reports", job / "reports")
    shutil.copy(state / "jobs" / "speed-2" / "job.json", job)
    command = [sys.executable, "-m", "broker_server.distil_worker", str(job)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        ends = time.monotonic() + WITHIN_S
        while not (job / "checkpoint" / "small.safetensors").exists() and time.monotonic() < ends:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert (job / "checkpoint" / "small.safetensors").exists()
    assert not (job / "result.json").exists()
    worker_process(WITHIN_S)(job, threading.Event())
    assert outcomes(decoded((job / MANIFEST).read_bytes(), "again")) == outcomes(stored(state))


@pytest.mark.parametrize("where", ["report", "training state", "pack"])
def test_an_altered_file_is_named(state: Path, where: str) -> None:
    """One bit of a report, of where the training began, or of a pack, and nothing is replayed."""
    names = {"report": "dev-1.report", "training state": "small.training.safetensors", "pack": "proxies.npz"}
    path = next(state / "jobs" / "speed-2" / n for n in stored(state).inputs if Path(n).name == names[where])
    with spoilt(path), pytest.raises(NotReadyError, match=rf"{names[where]}: was altered"):
        again(state)


def test_a_missing_file_is_named(state: Path) -> None:
    """A pack that was moved away is an error that names it."""
    pack = state.parent / "validation.npz"
    pack.rename(pack.with_suffix(".away"))
    with pytest.raises(NotReadyError, match=r"validation\.npz: is missing"):
        again(state)
    pack.with_suffix(".away").rename(pack)


def test_a_damaged_manifest_is_not_believed(state: Path) -> None:
    """A manifest whose bytes are not those that the database names is refused."""
    ref = record_of(state).manifest
    assert ref is not None
    with spoilt(state / "blobs" / ref.sha256), pytest.raises(NotReadyError, match="manifest of round 2"):
        again(state)


def test_a_pruned_round_says_so(state: Path) -> None:
    """Without its job's folder a round cannot be replayed."""
    folder = state / "jobs" / "speed-1"
    folder.rename(folder.with_name("away"))
    with pytest.raises(NotReadyError, match="was pruned"):
        again(state, 1)
    folder.with_name("away").rename(folder)


def test_a_round_that_was_not_distilled_says_so(state: Path) -> None:
    """An abandoned round gives its own reason."""
    record = msgspec.structs.replace(record_of(state), manifest=None, reason="0 of 4 reports")
    with pytest.raises(NotReadyError, match="not distilled: 0 of 4 reports"):
        replay(state, record, in_process)


def test_other_versions_are_refused_unless_forced(state: Path) -> None:
    """A round of another torch names both versions; forced, it is done and the difference is told."""
    manifest = stored(state)
    here = manifest.environment["torch"]
    older = msgspec.structs.replace(manifest, environment=manifest.environment | {"torch": "1.0"})
    record = with_manifest(state, older)
    with pytest.raises(NotReadyError, match=rf"torch 1\.0 → {here.split('+')[0]}.*--force"):
        replay(state, record, in_process)
    found = replay(state, record, in_process, force=True)
    assert found.same
    assert found.environment == {"torch": f"1.0 → {here}"}


def test_a_round_that_comes_out_differently_is_told(state: Path) -> None:
    """A worker that draws from another seed gives other weights, and the replay says which files differ."""

    def other_seed(folder: Path, _cancelled: threading.Event) -> None:
        job = read_job(folder)
        settings = msgspec.structs.replace(job.settings, seed=99)
        (folder / "job.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(job, settings=settings)))
        main([str(folder)], lambda _: None)

    found = replay(state, record_of(state), other_seed)
    assert not found.same
    differs = {pair.what for pair in found.outcomes if not pair.same}
    assert "nano/weights.safetensors" in differs
    assert not any("template" in name or "report/" in name for name in differs)
