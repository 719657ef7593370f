"""Writes a factory model: one signed release as a folder that a device boots from, and never writes. Owns no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from edge_client.disk import Disk, file_sha256
from edge_client.installed import InstalledStore
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import ConfigError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.task import Tier
from edge_protocol.trust import Proof, commissioned, proven, refreshed, rotated


def proof_of(manifest: bytes, task: TaskId, files: Mapping[str, bytes], now: float) -> Proof:
    """Say why a device that trusts the fleet's root may trust a release.

    Args:
        manifest: as it was listed.
        task: its name.
        files: the fleet's signed metadata, by name.
        now: seconds since 1970; metadata that have expired by then prove nothing.

    Raises:
        TrustError: they do not prove it.
    """
    at = datetime.fromtimestamp(now, timezone.utc)
    trusted = refreshed(rotated(commissioned(files["1.root"]), files), files, task, at)
    return proven(trusted, task, manifest, at)[1]


def write_factory(
    folder: Path, manifest: bytes, proof: Proof, tier: Tier | None, read: Callable[[BlobRef], bytes]
) -> int:
    """Write a release down, beside those of other tasks; return its counter.

    ::

        <folder>/<task>/current.json    the pointer, with the manifest and its proof
        <folder>/blobs/<sha256>/data    its files

    Args:
        folder: made when it is missing.
        manifest: of the release, as it was listed.
        proof: why it is trusted; the device checks it again at every boot.
        tier: of the boards; None for all that the release has. Of each the plain artifact, which runs everywhere.
        read: gives the bytes of a file.

    Raises:
        ConfigError: the folder holds a release of this task already: one that boards came with never changes.
        IncompatibleError: the release has nothing for this tier.
        RoadcastError: a file cannot be read, or the disk refused.
    """
    release = decode_manifest(manifest)
    plain = [each for each in release.artifacts if not each.variant]
    artifacts = plain if tier is None else [release.artifact_for(tier)]
    place = folder / release.task.name
    if (place / "current.json").exists():
        raise ConfigError(f"{place}: holds a factory model already; name a new folder, or remove it first")
    disk = Disk()
    for ref in [ref for each in artifacts for ref in (each.template, each.weights, each.golden)]:
        path = folder / "blobs" / ref.sha256 / "data"
        if file_sha256(path) != ref.sha256:
            disk.write_atomic(path, read(ref))
    InstalledStore(place, disk).commit(release.counter, artifacts[0], manifest, proof)
    return release.counter
