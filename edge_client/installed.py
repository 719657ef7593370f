"""What is installed on this device: an atomic pointer per task, the one before it, and heads; owns no blob, no runner.

``current.json`` names the release that answers frames, ``previous.json`` the one before; a folder of the same form that
is never written, the factory model, comes last. `resolve` reads nothing but the disk, and falls back from a pointer
whose files are damaged, or whose release took the agent down time and again. The pointer holds the manifest and its
proof, so that nothing runs that no trusted key listed, after a restart no more than before; a boot asks no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_client.disk import Disk, file_sha256
from edge_client.offers import MAX_ATTEMPTS
from edge_models.head_weights import HeadType, HeadWeights
from edge_protocol.errors import IncompatibleError, RoadcastError, StoreError
from edge_protocol.manifest import Artifact
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.trust import Proof, check_again

_REMEMBERED = 4
DAMAGED = (RoadcastError, msgspec.DecodeError, OSError, ValueError, RecursionError)
"""What reading a file that a disk has spoilt may raise."""


class Pointer(msgspec.Struct, frozen=True, kw_only=True):
    """What ``current.json`` says: release counter, hashes of its files, their manifest, and why it is trusted."""

    release: int
    template: str
    weights: str
    golden: str
    manifest: bytes
    proof: Proof


class HeadChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What came of fitting a personal head: ``heads/<release>.json``.

    Attributes:
        chosen: which head serves.
        shared, personal: scores on samples kept back; empty when there were too few.
        head: type of the personal head.
        tried: scores of each type that was tried.
        n_train, n_valid: samples fitted on and kept back.
    """

    chosen: str
    shared: dict[str, float]
    personal: dict[str, float]
    n_train: int
    n_valid: int
    head: HeadType = "linear"
    tried: dict[str, dict[str, float]] = msgspec.field(default_factory=dict)


class _Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """What ``attempts.json`` says of loads without an outcome.

    Attributes:
        counted: release → those under which a process died.
        under_way: releases whose loads the last process had begun, in order.
    """

    counted: dict[int, int] = msgspec.field(default_factory=dict)
    under_way: list[int] = msgspec.field(default_factory=list)

    def after_the_end(self) -> dict[int, int]:
        """What is counted when that process has died: what was loaded last is to blame, not what had served before."""
        counted = dict(self.counted)
        for release in self.under_way[-1:]:
            counted[release] = counted.get(release, 0) + 1
        return counted


@dataclass(frozen=True, slots=True)
class Resolved:
    """A release that the disk holds whole.

    Attributes:
        release: its counter.
        artifact: its files.
        blobs: the folder that they lie in.
    """

    release: int
    artifact: Artifact
    blobs: Path

    def blob(self, sha256: str) -> Path:
        """Where one of its files lies."""
        return self.blobs / sha256 / "data"


def resolve(
    folder: Path, blobs: Path, *, spec: TaskSpec, tier: Tier, root: bytes, factory: Path | None = None
) -> tuple[list[Resolved], list[str]]:
    """Decide from the disk alone what may run: releases whose files are whole, in order; and why others may not.

    Args:
        folder: ``<state>/<task>``.
        blobs: ``<state>/blobs``.
        spec: the device's task.
        tier: the device's tier.
        root: that it was commissioned with.
        factory: a folder like the state directory that the board came with; it is the last resort.
    """
    whole: list[Resolved] = []
    skipped: list[str] = []
    attempts = InstalledStore(folder).attempts()
    places = [(folder / "current.json", blobs), (folder / "previous.json", blobs)]
    if factory is not None:
        places.append((factory / folder.name / "current.json", factory / "blobs"))
    for path, store in places:
        try:
            found = _check(path, store, spec, tier, root)
            if attempts.get(found.release, 0) >= MAX_ATTEMPTS:
                raise StoreError(f"release {found.release} took the agent down {MAX_ATTEMPTS} times")
        except FileNotFoundError:  # noqa: PERF203 - three files
            continue
        except DAMAGED as error:
            skipped.append(f"{path.name if store == blobs else 'factory model'}: {error}")
        else:
            whole.append(found)
    return whole, skipped


def _check(path: Path, blobs: Path, spec: TaskSpec, tier: Tier, root: bytes) -> Resolved:
    pointer = msgspec.json.decode(path.read_bytes(), type=Pointer)
    manifest = check_again(root, pointer.proof, spec.task_id, pointer.manifest)
    if manifest.counter != pointer.release or manifest.task.label_space != spec.label_space:
        raise IncompatibleError(
            f"the pointer names release {pointer.release}, its manifest another one or another task"
        )
    artifact = manifest.artifact_of(tier, pointer.weights) or manifest.artifact_for(tier)
    for ref in (artifact.template, artifact.weights, artifact.golden):
        if file_sha256(blobs / ref.sha256 / "data") != ref.sha256:
            raise StoreError(f"blob {ref.sha256[:12]} of release {pointer.release} is missing or damaged")
    return Resolved(pointer.release, artifact, blobs)


class InstalledStore:
    """Writes pointers, heads and the record of attempts of one task.

    Args:
        folder: ``<state>/<task>``.
        disk: how to write.
    """

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self._folder, self._disk = folder, disk or Disk()
        self._written = self._read_attempts()
        self._counted, self._under_way = self._written.after_the_end(), list[int]()

    def commit(
        self, release: int, artifact: Artifact, manifest: bytes, proof: Proof, *, running: int | None = None
    ) -> None:
        """Point at a release; the one that was current becomes the previous one.

        Args:
            release: its counter.
            artifact: its files.
            manifest: as it was listed.
            proof: why it is trusted.
            running: counter of the release that serves, 0 for none. When the current pointer names another one, it is
                damaged, and must not take the place of the one that the device fell back to. None: it is not.

        Raises:
            StoreError: the disk refused; the old pointer stands.
        """
        current = self._folder / "current.json"
        pointer = Pointer(
            release=release,
            template=artifact.template.sha256,
            weights=artifact.weights.sha256,
            golden=artifact.golden.sha256,
            manifest=manifest,
            proof=proof,
        )
        before = self._pointer("current.json")
        if before is not None and before.release != release and running in {None, before.release}:
            self._disk.write_atomic(self._folder / "previous.json", current.read_bytes())
        self._disk.write_atomic(current, msgspec.json.encode(pointer))

    def named_blobs(self) -> set[str]:
        """Hashes of every blob that a pointer names."""
        named: set[str] = set()
        for name in ("current.json", "previous.json"):
            pointer = self._pointer(name)
            if pointer is not None:
                named |= {pointer.template, pointer.weights, pointer.golden}
        return named

    def attempts(self) -> dict[int, int]:
        """Release → loads of it under which the process died; of one under way, as if it died now."""
        return _Attempts(counted=self._counted, under_way=self._under_way).after_the_end()

    def begin_attempt(self, release: int) -> None:
        """Note a load of a release, before its first byte is read: a crash must not be repeated for ever.

        Raises:
            StoreError: the disk refused.
        """
        self._under_way.append(release)
        self._write_attempts()

    def end_attempt(self, release: int) -> None:
        """The load had an outcome; one that began before it goes on.

        Raises:
            StoreError: the disk refused; the count stands, and the next outcome clears it.
        """
        self._counted.pop(release, None)
        self._under_way = [each for each in self._under_way if each != release]
        self._write_attempts()

    def end_attempts(self) -> None:
        """Every load under way had an outcome.

        Raises:
            StoreError: as for one.
        """
        for release in self._under_way:
            self._counted.pop(release, None)
        self._under_way = []
        self._write_attempts()

    def settle(self, release: int) -> None:
        """A release has served for a while: its loads are forgotten, and each that was left alone gets one more.

        For a power cut counts like a crash: a sound release comes back at a later start, a bad one costs one crash.

        Raises:
            StoreError: the disk refused; the counts stand.
        """
        self._counted = {each: min(count, MAX_ATTEMPTS - 1) for each, count in self._counted.items()}
        self.end_attempt(release)

    def _write_attempts(self) -> None:
        self._counted = {each: self._counted[each] for each in sorted(self._counted)[-_REMEMBERED:]}
        attempts = _Attempts(counted=dict(self._counted), under_way=list(self._under_way))
        if attempts != self._written:
            self._disk.write_atomic(self._folder / "attempts.json", msgspec.json.encode(attempts))
            self._written = attempts

    def _read_attempts(self) -> _Attempts:
        try:
            return msgspec.json.decode((self._folder / "attempts.json").read_bytes(), type=_Attempts)
        except (OSError, msgspec.DecodeError, ValueError):
            return _Attempts()

    def _pointer(self, name: str) -> Pointer | None:
        """What a pointer says, None when there is none or it cannot be read."""
        try:
            return msgspec.json.decode((self._folder / name).read_bytes(), type=Pointer)
        except (OSError, msgspec.DecodeError, ValueError, RecursionError):
            return None

    def save_head(self, release: int, head: HeadWeights, choice: HeadChoice) -> None:
        """Write the head that serves a release, and how it was chosen; heads of other releases but the last go.

        So does what a kill left half written.

        Raises:
            StoreError: the disk refused.
        """
        heads = self._folder / "heads"
        for torn in heads.glob("*.tmp"):
            self._disk.unlink(torn)
        self._disk.write_atomic(heads / f"{release}.safetensors", head.to_bytes())
        self._disk.write_atomic(heads / f"{release}.json", msgspec.json.format(msgspec.json.encode(choice)))
        kept = sorted((int(path.stem) for path in heads.glob("*.json") if path.stem.isdigit()), reverse=True)[2:]
        for old in kept:
            self._disk.unlink(heads / f"{old}.safetensors")
            self._disk.unlink(heads / f"{old}.json")

    def load_head(self, release: int, spec: TaskSpec) -> tuple[HeadWeights, HeadChoice] | None:
        """The head of a release; None when there is none, or it is damaged or another task's: the shared one serves."""
        path = self._folder / "heads" / f"{release}.json"
        try:
            choice = msgspec.json.decode(path.read_bytes(), type=HeadChoice)
            return HeadWeights.from_bytes(path.with_suffix(".safetensors").read_bytes()).fitting(spec), choice
        except DAMAGED:
            return None
