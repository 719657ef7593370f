"""Makes releases: artifacts into the blob folder, manifest listed, the whole written down. Owns no broker and no round.

::

    releases/<task>/<counter>/manifest.bin          the manifest, whose hash signed metadata list
    releases/<task>/<counter>/<tier>.safetensors    float32 state dict: the student
    releases/<task>/<counter>/<tier>.training.safetensors    where the next round's training goes on
    releases/<task>/<counter>/<tier>.weights.safetensors     plain weights payload, whose scales the next one keeps
    releases/<task>/<counter>/<tier>.drift.safetensors       where shared trunks were heading, if devices share them

An artifact folder, from the distiller or pushed by an operator, holds for each tier::

    <tier>/template.onnx  weights.safetensors  golden.safetensors  state.safetensors  training.safetensors
    <tier>/<variant>/template.onnx  weights.safetensors  golden.safetensors    maybe, of each that passed its gates
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from broker_server.audit import AuditEntry
from broker_server.foreign import next_counter
from broker_server.offers import check_offer
from broker_server.records import ReleaseRecord, RolloutRecord
from broker_server.rollout_plan import Plan
from broker_server.signed_roles import SignedRoles
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.store.engine import translated
from broker_server.store.lock import locked
from edge_protocol.blobs import BlobRef
from edge_protocol.delta import make_delta
from edge_protocol.errors import ArtifactError, DigestError, StoreError
from edge_protocol.files import sync_folder, write_atomic
from edge_protocol.ids import TaskId
from edge_protocol.manifest import SCALE, VARIANTS, Artifact, Delta, ReleaseManifest, decode_manifest, encode_manifest
from edge_protocol.task import TIERS, TaskSpec, Tier
from edge_protocol.transport.settings import BrokerSettings

DELTA_BASES = 2
"""How many of the fleet's last releases a new one gives deltas from; the broker keeps as many by default."""
WORTH = 0.9
"""A delta larger than this share of the whole payload is not worth a second way to get it."""
_FILES = ("template.onnx", "weights.safetensors", "golden.safetensors")


@dataclass(frozen=True, slots=True)
class Hold:
    """A release that a rollout is to bring to the fleet: how, who says so, and whether it starts by itself."""

    plan: Plan
    by: str
    starts: bool


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a release comes from: `round` is None when an operator pushed it, `by` is who the audit log names."""

    round: int | None
    metrics: Mapping[str, float]
    notes: str = ""
    by: str = "server"


class ReleaseFolder:
    """The releases of a server: files, blobs and their rows.

    Args:
        state_dir: the server's state.
        roles: who sign that a manifest is a release.
        packet_bytes: of the largest packet that the broker takes.
    """

    def __init__(
        self,
        state_dir: Path,
        fleet: str,
        database: Database,
        blobs: BlobFolder,
        roles: SignedRoles,
        *,
        packet_bytes: int = BrokerSettings().max_packet_bytes,
    ) -> None:
        self.root, self._packet_bytes = state_dir / "releases", packet_bytes
        self._fleet, self._database, self._blobs, self._roles = fleet, database, blobs, roles

    def folder(self, task: TaskId, counter: int) -> Path:
        """Where a release's files are."""
        return self.root / task / str(counter)

    def forget_training(self, task: TaskId, *, before: int) -> None:
        """Remove the training states and drifts of releases older than `before`; their students stay."""
        for name in ("training", "drift"):
            for state in (self.root / task).glob(f"*/*.{name}.safetensors"):
                if state.parent.name.isdigit() and int(state.parent.name) < before:
                    state.unlink(missing_ok=True)

    def make(
        self,
        spec: TaskSpec,
        artifacts: Path,
        origin: Provenance,
        now: float,
        hold: Hold | None = None,
        *,
        above: int = 0,
    ) -> ReleaseRecord:
        """Make the next release of a task from an artifact folder; with `hold`, a rollout brings it to the fleet.

        Raises:
            ArtifactError: a file is missing or broken, the metrics are not finite, or it could never be offered.
            StoreError: the disk refused.
        """
        if not all(math.isfinite(value) for value in origin.metrics.values()):
            raise ArtifactError(f"{artifacts}: a metric is not finite: {dict(origin.metrics)}")
        with locked(self.root):
            return self._make(spec, artifacts, origin, now, hold, above)

    def again(
        self, task: TaskId, counter: int, origin: Provenance, now: float, hold: Hold | None = None, *, above: int = 0
    ) -> ReleaseRecord:
        """Release the files of an earlier release under the next counter: what takes a worse one back.

        Raises:
            ArtifactError: there is no such release.
            StoreError: the disk refused.
        """
        with locked(self.root):
            found = self._database.release(task, counter)
            if found is None:
                raise ArtifactError(f"no release {counter} of {task!r} to go back to; push one")
            old = decode_manifest(found.manifest)
            fresh = next_counter(self._database, task, above)
            whole = tuple(msgspec.structs.replace(artifact, deltas=()) for artifact in old.artifacts)  # on most disks
            manifest = msgspec.structs.replace(
                old, counter=fresh, created_s=now, artifacts=whole, round=0, notes=origin.notes
            )
            source, folder = self.folder(task, counter), self.folder(task, fresh)
            with translated(str(folder)):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            for file in sorted(source.glob("*.safetensors")):
                write_atomic(folder / file.name, _file(file))
            newer = [r.counter for r in self._database.releases(task, after=counter)]
            origin = replace(origin, metrics=old.metrics)
            return self._record(manifest, folder, origin, hold, now, gone=[] if hold else newer)

    def list_again(self, task: TaskId, now: float) -> None:
        """Have the fleet's release, and newer ones, signed where they are not: metadata may have been brought back.

        Raises:
            NotReadyError: the task's key is not here.
            StoreError: the disk refused.
        """
        current = self._database.serving(task)
        for record in self._database.releases(task, after=current.counter - 1 if current else 0):
            if not self._roles.lists(task, record.counter, record.manifest):
                self._roles.list_release(task, record.counter, record.manifest, now)

    def _make(
        self, spec: TaskSpec, artifacts: Path, origin: Provenance, now: float, hold: Hold | None, above: int
    ) -> ReleaseRecord:
        counter = next_counter(self._database, spec.task_id, above)
        manifest = ReleaseManifest(
            fleet=self._fleet,
            counter=counter,
            task=spec,
            created_s=now,
            artifacts=tuple(
                self._artifact(spec, artifacts / tier / variant, tier, variant)
                for tier in _tiers(artifacts)
                for variant in ("", *variants_in(artifacts / tier))
            ),
            metrics=dict(origin.metrics),
            round=origin.round or 0,
            notes=origin.notes,
        )
        folder = self.folder(spec.task_id, counter)
        self._write(folder, artifacts)
        return self._record(manifest, folder, origin, hold, now)

    def _record(
        self,
        manifest: ReleaseManifest,
        folder: Path,
        origin: Provenance,
        hold: Hold | None,
        now: float,
        gone: Iterable[int] = (),
    ) -> ReleaseRecord:
        """Have a release signed whose files are in place, and write its row."""
        task, counter, data = manifest.task.task_id, manifest.counter, encode_manifest(manifest)
        check_offer(manifest, data, self._packet_bytes)
        self._roles.list_release(task, counter, data, now, gone)
        write_atomic(folder / "manifest.bin", data)
        with translated(str(folder)):
            sync_folder(folder.parent)
        record = ReleaseRecord(
            task=task,
            counter=counter,
            round=origin.round,
            created_s=manifest.created_s,
            metrics=dict(manifest.metrics),
            notes=manifest.notes,
            manifest=data,
        )
        draft = (
            RolloutRecord(task=task, counter=counter, plan=hold.plan, by=hold.by, starts=hold.starts) if hold else None
        )
        how = "pushed" if origin.round is None else f"round {origin.round}"
        detail = f"manifest {sha256(data).hexdigest()[:16]}, {origin.notes or how}"
        noted = AuditEntry(at_s=now, who=origin.by, what="release", task=task, release=counter, detail=detail)
        self._database.add_release(record, draft, None if hold else noted)
        return record

    def _artifact(self, spec: TaskSpec, folder: Path, tier: Tier, variant: str) -> Artifact:
        template, weights, golden = (self._blobs.put(_file(folder / name)) for name in _FILES)
        parameters, deltas = _parameters(folder), self._deltas(weights, self._bases(spec.task_id, tier, variant))
        return Artifact(tier, spec.students[tier], template, weights, golden, parameters, deltas, variant)

    def _bases(self, task: TaskId, tier: Tier, variant: str) -> list[BlobRef]:
        """Weights of the last releases that were the fleet's, newest first, each once."""
        aside = self._database.aside(task)
        served = [r for r in self._database.releases(task) if r.counter not in aside]
        manifests = (decode_manifest(r.manifest) for r in served[-DELTA_BASES:])
        found = [
            a.weights for manifest in manifests for a in manifest.artifacts if (a.tier, a.variant) == (tier, variant)
        ]
        return list({ref.sha256: ref for ref in reversed(found)}.values())

    def _deltas(self, weights: BlobRef, bases: list[BlobRef]) -> tuple[Delta, ...]:
        """Shorter ways to the weights, from those bases that can be read and are worth it."""
        found = []
        for base in bases:
            try:
                delta = make_delta(self._blobs.read(base), self._blobs.read(weights))
            except (DigestError, StoreError):
                continue
            if delta is not None and base != weights and len(delta) < WORTH * weights.size:
                found.append(Delta(base.sha256, self._blobs.put(delta)))
        return tuple(found)

    def _write(self, folder: Path, artifacts: Path) -> None:
        """Put the files in place under a counter that no row has: what lies there is of a make that never ended."""
        with translated(str(folder)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for tier in _tiers(artifacts):
            for name in ("state", "training", "weights", "drift"):
                source, kept = artifacts / tier / f"{name}.safetensors", tier if name == "state" else f"{tier}.{name}"
                if source.exists():
                    write_atomic(folder / f"{kept}.safetensors", _file(source))


def payloads(record: ReleaseRecord) -> dict[str, str]:
    """Hashes of the plain artifacts' weights payloads, by tier."""
    manifest = decode_manifest(record.manifest)
    return {artifact.tier: artifact.weights.sha256 for artifact in manifest.artifacts if not artifact.variant}


def variants_in(folder: Path) -> list[str]:
    """Which variants a tier's folder holds as artifacts."""
    return [variant for variant in VARIANTS if (folder / variant / "weights.safetensors").is_file()]


def _tiers(artifacts: Path) -> list[Tier]:
    found: list[Tier] = [tier for tier in TIERS if (artifacts / tier).is_dir()]
    if not found:
        raise ArtifactError(f"{artifacts}: no folder named after a tier ({', '.join(TIERS)}); nothing to release")
    return found


def _file(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error}; export the tier again") from error
    if not data:
        raise ArtifactError(f"{path}: is empty; export the tier again")
    return data


def _parameters(folder: Path) -> int:
    try:
        with safe_open(folder / "weights.safetensors", framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys() if not name.endswith(SCALE))  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{folder / 'weights.safetensors'}: not safetensors: {error}; export the tier again"
        ) from error
