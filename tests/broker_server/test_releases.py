"""Making releases: signed, numbered, content-addressed, and nothing half done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from safetensors.numpy import save_file

from broker_server.audit import verify
from broker_server.effects import SaveRollout
from broker_server.offers import check_offer
from broker_server.releases import Hold, Provenance, ReleaseFolder, payloads
from broker_server.rollout_plan import Plan
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from edge_protocol.delta import apply_delta
from edge_protocol.errors import ArtifactError
from edge_protocol.manifest import decode_manifest, encode_manifest
from edge_protocol.task import TIERS
from edge_protocol.trust import commissioned, proven, refreshed
from tests.broker_server.scenes import SPEC, TASK, huge_manifest
from tests.fakes.centre import write_artifacts
from tests.fakes.signed_fleet import SignedFleet

HOLD = Hold(Plan(), "ann", starts=False)


@pytest.fixture
def fleet() -> SignedFleet:
    """Who signs."""
    return SignedFleet(0.0, [TASK])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    made = Database(tmp_path / "server.db")
    yield made
    made.close()


@pytest.fixture
def releases(tmp_path: Path, database: Database, fleet: SignedFleet) -> ReleaseFolder:
    """A release folder."""
    return ReleaseFolder(tmp_path, "f", database, BlobFolder(tmp_path / "blobs"), fleet.roles)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """An artifact folder of every tier."""
    write_artifacts(tmp_path / "artifacts", SPEC, size=100)
    return tmp_path / "artifacts"


def test_a_release_is_signed_numbered_and_complete(
    releases: ReleaseFolder, artifacts: Path, database: Database, tmp_path: Path, fleet: SignedFleet
) -> None:
    """The manifest is listed, names every tier, and its blobs are in the folder."""
    record = releases.make(SPEC, artifacts, Provenance(3, {"nano/accuracy": 0.5}, "why"), 7.0)
    now = datetime.fromtimestamp(7, timezone.utc)
    trusted = refreshed(commissioned(fleet.root), fleet.files(), TASK, now)
    manifest, _ = proven(trusted, TASK, record.manifest, now)
    assert (manifest.fleet, manifest.counter, manifest.round, manifest.notes) == ("f", 1, 3, "why")
    assert [(a.tier, a.student, a.parameters) for a in manifest.artifacts] == [
        ("nano", "a", 100),
        ("small", "b", 100),
        ("base", "c", 100),
    ]
    blobs = BlobFolder(tmp_path / "blobs")
    weights = manifest.artifact_for("small").weights
    assert blobs.read(weights) == (artifacts / "small" / "weights.safetensors").read_bytes()
    assert database.releases(TASK) == [record]
    assert sorted(p.name for p in releases.folder(TASK, 1).iterdir()) == [
        "base.safetensors",
        "base.training.safetensors",
        "base.weights.safetensors",
        "manifest.bin",
        "nano.safetensors",
        "nano.training.safetensors",
        "nano.weights.safetensors",
        "small.safetensors",
        "small.training.safetensors",
        "small.weights.safetensors",
    ]
    assert releases.make(SPEC, artifacts, Provenance(None, {}), 8.0).counter == 2


def test_a_release_offers_deltas_from_the_last_two(
    releases: ReleaseFolder, artifacts: Path, tmp_path: Path, fleet: SignedFleet
) -> None:
    """Each leads to the weights it says, from the base it says; none where it would save next to nothing."""
    rng, blobs = np.random.default_rng(0), BlobFolder(tmp_path / "blobs")
    w = rng.normal(0, 0.1, 2000).astype(np.float16)
    made = []
    for counter in range(4):
        for tier in ("nano", "small"):
            save_file({"w": w + np.float16(0.0005 * counter)}, artifacts / tier / "weights.safetensors")
        noise = rng.integers(0, 31_000, 2000).astype(np.uint16).view(np.float16)
        save_file({"w": noise}, artifacts / "base" / "weights.safetensors")
        made.append(decode_manifest(releases.make(SPEC, artifacts, Provenance(None, {}), 1.0).manifest))
    last = made[3].artifact_for("nano")
    assert [d.base for d in last.deltas] == [made[n].artifact_for("nano").weights.sha256 for n in (2, 1)]
    for delta in last.deltas:
        base = (blobs.root / delta.base).read_bytes()
        assert apply_delta(base, blobs.read(delta.blob)) == blobs.read(last.weights)
        assert delta.blob in made[3].blobs
    assert made[0].artifact_for("nano").deltas == made[3].artifact_for("base").deltas == ()
    again = decode_manifest(releases.again(TASK, 3, Provenance(None, {}, "back"), 2.0).manifest)
    assert (again.counter, again.notes, again.artifact_for("nano").deltas) == (5, "back", ())
    assert again.artifact_for("nano").weights == made[2].artifact_for("nano").weights
    assert (releases.folder(TASK, 5) / "nano.safetensors").exists()
    listed = [n + 1 for n in range(4) if fleet.roles.lists(TASK, n + 1, encode_manifest(made[n]))]
    assert listed == [1, 2, 3], "what was taken back is no release any more"
    with pytest.raises(ArtifactError, match="no release 9"):
        releases.again(TASK, 9, Provenance(None, {}, ""), 2.0)


def test_the_audit_log_tells_who_released_what(releases: ReleaseFolder, artifacts: Path, database: Database) -> None:
    """A round's release, a pushed one, and one that came again; what waits for a rollout is told once that is seen."""
    first = releases.make(SPEC, artifacts, Provenance(3, {}), 7.0)
    releases.make(SPEC, artifacts, Provenance(None, {}, "by hand", "ann"), 8.0)
    releases.make(SPEC, artifacts, Provenance(None, {}, by="ann"), 9.0, Hold(Plan(), "ann", starts=False))
    releases.again(TASK, 1, Provenance(None, {}, "1 again, in place of 2"), 10.0)
    entries = database.audit()
    assert verify(entries)[0] == 3
    assert [(e.at_s, e.who, e.what, e.task, e.release) for e in entries] == [
        (7.0, "server", "release", TASK, 1),
        (8.0, "ann", "release", TASK, 2),
        (10.0, "server", "release", TASK, 4),
    ]
    assert entries[0].detail == f"manifest {sha256(first.manifest).hexdigest()[:16]}, round 3"
    assert [e.detail.partition(", ")[2] for e in entries[1:]] == ["by hand", "1 again, in place of 2"]


def test_a_release_brings_the_variants_that_are_there(releases: ReleaseFolder, artifacts: Path, tmp_path: Path) -> None:
    """Behind the plain artifact of their tier, each with deltas of its own; a folder that is none is left out."""
    rng = np.random.default_rng(0)
    plain, numbers = rng.normal(0, 0.1, 2000).astype(np.float16), rng.integers(-90, 90, 2000).astype(np.int8)
    (artifacts / "nano" / "int8-trt").mkdir()
    (artifacts / "nano" / "mine").mkdir()
    for counter in range(2):
        copytree(artifacts / "small", artifacts / "nano" / "int8-cpu", dirs_exist_ok=True)
        save_file({"w": plain + np.float16(0.0005 * counter)}, artifacts / "nano" / "weights.safetensors")
        save_file({"w": numbers + np.int8(counter)}, artifacts / "nano" / "int8-cpu" / "weights.safetensors")
        last = decode_manifest(releases.make(SPEC, artifacts, Provenance(None, {}), 1.0).manifest)
    found = [(a.tier, a.variant) for a in last.artifacts]
    assert found == [("nano", ""), ("nano", "int8-cpu"), ("small", ""), ("base", "")]
    int8, blobs = last.artifact_for("nano", ("int8-cpu",)), BlobFolder(tmp_path / "blobs")
    (delta,) = int8.deltas
    assert apply_delta((blobs.root / delta.base).read_bytes(), blobs.read(delta.blob)) == blobs.read(int8.weights)
    assert set(payloads(releases.make(SPEC, artifacts, Provenance(None, {}), 1.0)).values()) == {
        a.weights.sha256 for a in last.artifacts if not a.variant
    }


def test_two_that_push_at_once_get_two_counters(releases: ReleaseFolder, artifacts: Path, database: Database) -> None:
    """One waits for the other; nothing of either is lost."""
    threads = [
        threading.Thread(target=releases.make, args=(SPEC, artifacts, Provenance(None, {}, f"{n}"), 1.0))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [r.counter for r in database.releases(TASK)] == [1, 2, 3, 4]
    assert {r.notes for r in database.releases(TASK)} == set("0123")
    for counter in (1, 2, 3, 4):
        assert (releases.folder(TASK, counter) / "manifest.bin").exists()


def test_what_a_killed_make_left_behind_is_replaced(releases: ReleaseFolder, artifacts: Path) -> None:
    """A folder without a row belongs to nobody."""
    orphan = releases.folder(TASK, 1)
    orphan.mkdir(parents=True)
    (orphan / "stale.safetensors").write_bytes(b"x")
    releases.make(SPEC, artifacts, Provenance(None, {}), 1.0)
    assert not (orphan / "stale.safetensors").exists()


@pytest.mark.parametrize("name", ["template.onnx", "weights.safetensors", "golden.safetensors"])
def test_a_missing_or_empty_file_is_named_and_takes_no_counter(
    releases: ReleaseFolder, artifacts: Path, database: Database, name: str
) -> None:
    """Nothing is recorded for an incomplete artifact."""
    file = artifacts / "small" / name
    file.unlink()
    with pytest.raises(ArtifactError, match=rf"small/{name}.*export the tier again"):
        releases.make(SPEC, artifacts, Provenance(None, {}), 1.0)
    file.write_bytes(b"")
    with pytest.raises(ArtifactError, match="is empty"):
        releases.make(SPEC, artifacts, Provenance(None, {}), 1.0)
    assert database.releases() == []


def test_broken_weights_metrics_and_folders_are_refused(
    releases: ReleaseFolder, artifacts: Path, tmp_path: Path
) -> None:
    """Weights that are no safetensors, a metric that is no number, a folder without tiers."""
    with pytest.raises(ArtifactError, match="not finite"):
        releases.make(SPEC, artifacts, Provenance(1, {"nano/accuracy": float("nan")}), 1.0)
    with pytest.raises(ArtifactError, match="nothing to release"):
        releases.make(SPEC, tmp_path / "nowhere", Provenance(1, {}), 1.0)
    (artifacts / TIERS[0] / "weights.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ArtifactError, match="not safetensors"):
        releases.make(SPEC, artifacts, Provenance(1, {}), 1.0)


def test_deltas_come_from_what_was_the_fleets(releases: ReleaseFolder, artifacts: Path, database: Database) -> None:
    """Releases that were held back and aborted are on no device, so they are no bases."""
    w = np.random.default_rng(0).normal(0, 0.1, 2000).astype(np.float16)
    made = []
    for counter, hold in enumerate((None, HOLD, HOLD, None)):
        save_file({"w": w + np.float16(0.0005 * counter)}, artifacts / "nano" / "weights.safetensors")
        made.append(releases.make(SPEC, artifacts, Provenance(None, {}), 1.0, hold))
        if hold is not None:
            draft = database.draft(TASK, made[-1].counter)
            assert draft is not None
            database.apply([SaveRollout(draft.changed(state="aborted"))])
    first, last = (decode_manifest(record.manifest).artifact_for("nano") for record in (made[0], made[-1]))
    assert [delta.base for delta in last.deltas] == [first.weights.sha256]


def test_an_earlier_release_comes_again_held_back(
    releases: ReleaseFolder, artifacts: Path, database: Database, fleet: SignedFleet
) -> None:
    """A rollout brings it in waves, and until then the fleet's stays one that devices may take."""
    made = [releases.make(SPEC, artifacts, Provenance(None, {}), 1.0) for _ in range(2)]
    again = releases.again(TASK, 1, Provenance(None, {}, "back"), 2.0, HOLD, above=6)
    assert again.counter == 7
    draft, serving = database.draft(TASK, 7), database.serving(TASK)
    assert draft is not None
    assert serving is not None
    assert (draft.state, draft.by, serving.counter) == ("draft", "ann", 2)
    assert fleet.roles.lists(TASK, 2, made[1].manifest)


@pytest.mark.parametrize(
    ("packet_bytes", "what"),
    [(1_200, "manifest would be a message of"), (20_000, "largest chunk would be a message of")],
)
def test_a_release_that_no_packet_holds_is_refused_before_it_is_signed(
    tmp_path: Path, database: Database, fleet: SignedFleet, packet_bytes: int, what: str
) -> None:
    """Its manifest or a chunk is above the broker's limit: one line says which, and no counter is taken."""
    write_artifacts(tmp_path / "artifacts", SPEC, size=100 if packet_bytes < 2_000 else 10_000)
    blobs = BlobFolder(tmp_path / "blobs")
    small = ReleaseFolder(tmp_path, "f", database, blobs, fleet.roles, packet_bytes=packet_bytes)
    before = fleet.roles.stamp()
    with pytest.raises(ArtifactError, match=what) as refused:
        small.make(SPEC, tmp_path / "artifacts", Provenance(None, {}), 0.0)
    assert "broker.max_packet_bytes" in str(refused.value)
    assert (database.releases(TASK), fleet.roles.stamp()) == ([], before)
    enough = ReleaseFolder(tmp_path, "f", database, blobs, fleet.roles, packet_bytes=64 * 1024)
    assert enough.make(SPEC, tmp_path / "artifacts", Provenance(None, {}), 0.0).counter == 1


def test_a_manifest_above_the_wire_s_bound_is_refused(releases: ReleaseFolder, artifacts: Path) -> None:
    """Whatever the broker takes, no device reads an offer above 256 KiB."""
    record = releases.make(SPEC, artifacts, Provenance(None, {}), 0.0)
    manifest = huge_manifest(record.manifest)
    with pytest.raises(ArtifactError, match=r"cannot be offered: release of .* bytes exceeds 262144"):
        check_offer(manifest, encode_manifest(manifest), 256 << 20)
