"""Copies what devices may fetch into a plain folder for any static HTTP server; owns no list of its own.

Not ``blobs/`` itself: that holds round manifests too, which are nobody's business.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.store.engine import translated
from edge_protocol.blobs import BlobRef
from edge_protocol.files import write_atomic
from edge_protocol.manifest import decode_manifest

_NAME = re.compile(r"[0-9a-f]{64}")


def wanted_blobs(database: Database) -> dict[str, BlobRef]:
    """Every blob of the releases that the broker keeps or that wait for a rollout, and each task's newest proxy set.

    Raises:
        StoreError: the disk refused.
    """
    found: dict[str, BlobRef] = {}
    for release in database.releases():
        if release.on_broker:
            found |= {ref.sha256: ref for ref in decode_manifest(release.manifest).blobs}
    proxies = {r.task: r.proxy for r in sorted(database.rounds(), key=lambda r: r.number) if r.proxy is not None}
    return found | {ref.sha256: ref for ref in proxies.values()}


def export_blobs(wanted: dict[str, BlobRef], blobs: BlobFolder, folder: Path, *, prune: bool) -> dict[str, int]:
    """Have a folder hold blobs as files named by their hash, each written whole or not at all.

    Args:
        wanted: hash → blob.
        blobs: where they lie.
        folder: made when it is missing; what it holds of them already is kept.
        prune: delete files in it that are named like a blob and are not wanted.

    Returns:
        How many were ``written``, ``kept`` and ``deleted``, and ``bytes`` in all.

    Raises:
        StoreError: the disk refused, or a blob is not there.
        DigestError: a blob is damaged.
    """
    counts = {"written": 0, "kept": 0, "deleted": 0, "bytes": sum(ref.size for ref in wanted.values())}
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name: path for path in folder.iterdir() if _NAME.fullmatch(path.name)}
        for name, ref in wanted.items():
            if name in there and sha256(there[name].read_bytes()).hexdigest() == name:
                counts["kept"] += 1
                continue
            write_atomic(folder / name, blobs.read(ref))
            counts["written"] += 1
        for name in (there.keys() - wanted.keys()) if prune else ():
            there[name].unlink()
            counts["deleted"] += 1
    return counts
