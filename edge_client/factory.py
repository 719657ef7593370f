"""Writes a factory model: one proven release as a folder that a device boots from, and never writes. Owns no key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_client.disk import Disk, file_sha256
from edge_client.installed import InstalledStore
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import ConfigError
from edge_protocol.manifest import decode_manifest
from edge_protocol.task import Tier
from edge_protocol.trust import Proof


def write_factory(folder: Path, data: bytes, proof: Proof, tier: Tier | None, read: Callable[[BlobRef], bytes]) -> int:
    """Write a release down, beside those of other tasks; return its counter.

    ::

        <folder>/<task>/current.json    the pointer, with manifest and proof
        <folder>/blobs/<sha256>/data    its files

    Args:
        folder: made when it is missing.
        data: the release's manifest, as it was published.
        proof: why it is trusted; the device checks it at every boot.
        tier: of the boards; None for all that the release has. Of each the plain artifact, which runs everywhere.
        read: gives the bytes of a file.

    Raises:
        ConfigError: the folder holds a release of this task already: one that boards came with never changes.
        IncompatibleError: the release has nothing for this tier.
        RoadcastError: a file cannot be read, or the disk refused.
    """
    manifest = decode_manifest(data)
    plain = [each for each in manifest.artifacts if not each.variant]
    artifacts = plain if tier is None else [manifest.artifact_for(tier)]
    place = folder / manifest.task.name
    if (place / "current.json").exists():
        raise ConfigError(f"{place}: holds a factory model already; name a new folder, or remove it first")
    disk = Disk()
    for ref in [ref for each in artifacts for ref in (each.template, each.weights, each.golden)]:
        path = folder / "blobs" / ref.sha256 / "data"
        if file_sha256(path) != ref.sha256:
            disk.write_atomic(path, read(ref))
    InstalledStore(place, disk).commit(manifest.counter, artifacts[0], data, proof)
    return manifest.counter
