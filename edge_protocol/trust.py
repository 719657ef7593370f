"""What a device trusts: The Update Framework's client workflow on pushed metadata; owns no clock, file or link.

The specification 1.0, section 5, with public parts of ``tuf`` alone: parsing, canonical bytes, thresholds. Time is an
argument. Every function returns a new `TrustedMetadata` or raises; what was trusted before is never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar

import msgspec
from tuf.api.exceptions import LengthOrHashMismatchError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError, SerializationError

from edge_protocol.errors import RemoteProtocolError, TrustError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import ReleaseManifest, decode_manifest

MAX_METADATA: Final = 128 * 1024
"""Largest file of signed metadata, in bytes: what is larger is refused before it is parsed."""
MAX_ROOTS: Final = 256
"""Root versions that a device follows from the one it was commissioned with."""
SKEW_S: Final = 300.0
"""Seconds that the clocks of device and server may differ."""
CREATED: Final = "created"
"""Field of timestamp metadata: when it was signed, whole seconds since 1970; later no true clock shows less."""
MAX_TIME_S: Final = 2**40

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


class TrustedMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What was verified last, as the bytes that were signed; empty where nothing has been.

    Attributes:
        roots: the root that the device was commissioned with and every later version, oldest first.
        timestamp, snapshot, targets: of the top-level roles.
        releases: of the role to which `targets` delegates the task.
    """

    roots: tuple[bytes, ...]
    timestamp: bytes = b""
    snapshot: bytes = b""
    targets: bytes = b""
    releases: bytes = b""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Why a manifest was trusted when it was accepted: enough to check again at any boot, without clock or link."""

    roots: tuple[bytes, ...]
    targets: bytes
    releases: bytes


def role_of(task: TaskId) -> str:
    """Name of the role that signs a task's releases."""
    return f"task-{task}"


def target_of(task: TaskId, counter: int) -> str:
    """Name of a release among the targets."""
    return f"{task}/{counter}"


def commissioned(root: bytes) -> TrustedMetadata:
    """Trust begins with a root that the installer brought.

    Raises:
        TrustError: it is not root metadata, or not signed by its own threshold.
    """
    _first(root)
    return TrustedMetadata(roots=(root,))


def root_version(trusted: TrustedMetadata) -> int:
    """Version of the newest root."""
    return _parse(Root, "root", trusted.roots[-1]).signed.version


def clock_floor_s(trusted: TrustedMetadata) -> float:
    """The time below which no true clock can be, seconds since 1970: when the trusted timestamp was signed; else 0.

    A timestamp whose key the newest root has replaced is not trusted: so its owners undo one signed at a wrong time.
    """
    root = _parse(Root, "root", trusted.roots[-1]).signed
    timestamp = _still_trusted(Timestamp, "timestamp", trusted.timestamp, root)
    return _created(timestamp) - SKEW_S if timestamp else 0.0


def rotated(trusted: TrustedMetadata, received: Mapping[str, bytes]) -> TrustedMetadata:
    """Follow the chain of roots as far as it was received: each signed by the threshold of the last one and its own.

    Args:
        trusted: so far.
        received: file name without ``.json`` → bytes.

    Raises:
        TrustError: ``metadata-…``; the next root is not what it claims.
    """
    roots, root = list(trusted.roots), _parse(Root, "root", trusted.roots[-1]).signed
    while (data := received.get(f"{root.version + 1}.root")) is not None and len(roots) < MAX_ROOTS:
        root = _next(root, data)
        roots.append(data)
    return msgspec.structs.replace(trusted, roots=tuple(roots))


def refreshed(trusted: TrustedMetadata, received: Mapping[str, bytes], task: TaskId, now: datetime) -> TrustedMetadata:
    """Take newer timestamp, snapshot, targets and releases, all of them or none.

    Args:
        trusted: so far; its roots are `rotated` already.
        received: file name without ``.json`` → bytes.
        task: whose releases are wanted.
        now: by a clock that is trusted.

    Raises:
        TrustError: ``metadata-missing`` while not all of them are here; another ``metadata-…`` names the attack.
    """
    root = _parse(Root, "root", trusted.roots[-1]).signed
    _in_time(root, "root", now)
    timestamp_bytes = _newer_timestamp(root, trusted.timestamp, received.get("timestamp", b""))
    timestamp = _parse(Timestamp, "timestamp", timestamp_bytes).signed
    _in_time(timestamp, "timestamp", now)
    if _created(timestamp) > now.timestamp() + SKEW_S:
        raise TrustError("metadata-future", "timestamp was signed later than this clock shows: set the clock right")
    choices = (received.get("snapshot", b""), trusted.snapshot)
    snapshot_bytes, snapshot = _listed(Snapshot, "snapshot", timestamp.snapshot_meta, choices, root)
    _no_rollback(root, trusted.snapshot, snapshot)
    _in_time(snapshot, "snapshot", now)
    targets_bytes, targets = _described(snapshot, "targets", received, trusted.targets, root)
    _in_time(targets, "targets", now)
    role = role_of(task)
    releases_bytes, releases = _described(snapshot, role, received, trusted.releases, targets)
    _in_time(releases, role, now)
    return TrustedMetadata(
        roots=trusted.roots,
        timestamp=timestamp_bytes,
        snapshot=snapshot_bytes,
        targets=targets_bytes,
        releases=releases_bytes,
    )


def proven(trusted: TrustedMetadata, task: TaskId, manifest: bytes, now: datetime) -> tuple[ReleaseManifest, Proof]:
    """Say why a manifest may be accepted now.

    Raises:
        TrustError: ``release-unlisted``, or ``metadata-expired`` or ``-missing``: what is trusted is too old by now.
    """
    kept = refreshed(trusted, {}, task, now)
    proof = Proof(roots=kept.roots, targets=kept.targets, releases=kept.releases)
    return _open(proof, _parse(Root, "root", kept.roots[-1]).signed, task, manifest), proof


def check_again(commissioned_root: bytes, proof: Proof, task: TaskId, manifest: bytes) -> ReleaseManifest:
    """Open a manifest that was accepted before: signatures and hash, without expiry; for a boot.

    Raises:
        TrustError: nobody whom the root trusts, directly or by rotation, listed this manifest.
    """
    root = _first(commissioned_root)
    for data in proof.roots:
        if _parse(Root, "root", data).signed.version > root.version:
            root = _next(root, data)
    return _open(proof, root, task, manifest)


def _open(proof: Proof, root: Root, task: TaskId, data: bytes) -> ReleaseManifest:
    """Return the manifest when the task's role lists exactly these bytes under its name."""
    targets = _verified(Targets, "targets", proof.targets, root)
    role = role_of(task)
    releases = _verified(Targets, role, proof.releases, targets)
    try:
        manifest = decode_manifest(data)
    except RemoteProtocolError as error:
        raise TrustError("release-malformed", str(error)) from error
    name = target_of(manifest.task.task_id, manifest.counter)
    delegations = targets.delegations
    delegated = delegations.roles.get(role) if delegations and delegations.roles else None
    listed = releases.targets.get(name)
    if listed is None or delegated is None or not delegated.is_delegated_path(name):
        raise TrustError(
            "release-unlisted", f"release {name} is not listed by the {role!r} key that this device trusts"
        )
    try:
        listed.verify_length_and_hashes(data)
    except LengthOrHashMismatchError as error:
        raise TrustError("release-unlisted", f"release {name} is not the one that was signed: {error}") from error
    return manifest


def _first(data: bytes) -> Root:
    root = _parse(Root, "root", data)
    return _verified(Root, "root", data, root.signed)


def _next(root: Root, data: bytes) -> Root:
    """The root after another: signed by the threshold of both."""
    new = _verified(Root, "root", data, root)
    if new.version != root.version + 1:
        raise TrustError("metadata-rollback", f"root version {new.version} came where {root.version + 1} belongs")
    return _verified(Root, "root", data, new)


def _newer_timestamp(root: Root, old_data: bytes, new_data: bytes) -> bytes:
    """The newer of two timestamps. The old one bars rollbacks as long as the root still trusts its key."""
    old = _still_trusted(Timestamp, "timestamp", old_data, root)
    if not new_data:
        if old is None:
            raise TrustError("metadata-missing", "no timestamp has come yet that the root trusts")
        return old_data
    new = _verified(Timestamp, "timestamp", new_data, root)
    if old is None:
        return new_data
    pairs = ("timestamp", new, old), ("snapshot", new.snapshot_meta, old.snapshot_meta)
    for name, later, earlier in pairs:
        if later.version < earlier.version:
            raise TrustError("metadata-rollback", f"{name} version {later.version} came after {earlier.version}")
    return old_data if new.version == old.version else new_data


def _no_rollback(root: Root, old_data: bytes, new: Snapshot) -> None:
    """No role may come back in a lower version, or go: while the root still trusts the key of the old snapshot."""
    old = _still_trusted(Snapshot, "snapshot", old_data, root)
    for name, before in old.meta.items() if old else ():
        after = new.meta.get(name)
        if after is None or after.version < before.version:
            came = "no version" if after is None else f"version {after.version}"
            raise TrustError("metadata-rollback", f"{name}: {came} came after {before.version}")


def _described(
    snapshot: Snapshot, role: str, received: Mapping[str, bytes], kept: bytes, delegator: Root | Targets
) -> tuple[bytes, Targets]:
    meta = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise TrustError("metadata-missing", f"the snapshot knows no role {role!r}; is the task one of the server's?")
    return _listed(Targets, role, meta, (received.get(role, b""), kept), delegator)


def _listed(
    kind: type[T], role: str, meta: MetaFile, choices: tuple[bytes, bytes], delegator: Root | Targets
) -> tuple[bytes, T]:
    """That one of two files which is described, received or kept; a mixture of old and new is none."""
    for data in filter(None, choices):
        try:
            meta.verify_length_and_hashes(data)
        except LengthOrHashMismatchError:
            continue
        found = _verified(kind, role, data, delegator)
        if found.version == meta.version:
            return data, found
    if any(choices):
        raise TrustError("metadata-mixed", f"{role}: version {meta.version} is due, and what came is not it")
    raise TrustError("metadata-missing", f"{role}: version {meta.version} has not come yet")


def _still_trusted(kind: type[T], role: str, data: bytes, root: Root) -> T | None:
    """What was trusted before, unless the root has other keys by now: so versions can start anew (5.3.11)."""
    try:
        return _verified(kind, role, data, root) if data else None
    except TrustError:
        return None


def _verified(kind: type[T], role: str, data: bytes, delegator: Root | Targets) -> T:
    metadata = _parse(kind, role, data)
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (UnsignedMetadataError, SerializationError, ValueError) as error:
        detail = f"{role}: not signed by as many of the keys as its delegation asks for: {error}"
        raise TrustError("metadata-unsigned", detail) from error
    return metadata.signed


def _parse(kind: type[T], role: str, data: bytes) -> Metadata[T]:
    if len(data) > MAX_METADATA:
        raise TrustError("metadata-oversized", f"{role}: {len(data)} bytes exceed {MAX_METADATA}")
    try:
        metadata = Metadata[T].from_bytes(data)
    except DeserializationError as error:
        raise TrustError("metadata-malformed", f"{role}: not signed metadata: {error.__cause__ or error}") from error
    if not isinstance(metadata.signed, kind):
        raise TrustError("metadata-malformed", f"{role}: came as {metadata.signed.type!r} metadata")
    return metadata


def _in_time(signed: Signed, role: str, now: datetime) -> None:
    if signed.is_expired(now):
        raise TrustError("metadata-expired", f"{role}: version {signed.version} expired at {signed.expires:%F %T} UTC")


def _created(timestamp: Timestamp) -> float:
    found = timestamp.unrecognized_fields.get(CREATED, 0)
    return float(found) if isinstance(found, int) and 0 <= found < MAX_TIME_S else 0.0
