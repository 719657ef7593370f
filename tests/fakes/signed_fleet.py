"""A fleet's signed metadata with every private key at hand: what a server publishes, and what a thief could sign."""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata

from broker_server.config import TrustConfig
from broker_server.keys import KeyFolder, Keys
from broker_server.signed_roles import SignedRoles
from broker_server.store.roles import TOP_LEVEL
from edge_protocol.ids import TaskId
from edge_protocol.manifest import ReleaseManifest, encode_manifest
from edge_protocol.trust import Proof, commissioned, proven, refreshed, role_of, rotated

TASKS = ("vehicle", "speed", "clinic")


class SignedFleet:
    """Roles of a fleet, each with its key in one folder.

    Args:
        now: when everything is signed first, seconds since 1970; None for now.
        tasks: whose releases are delegated.
        roots: number of root keys.
        threshold: of them.
    """

    def __init__(
        self, now: float | None = None, tasks: Sequence[str] = TASKS, *, roots: int = 1, threshold: int = 1
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="signed-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.now = time.time() if now is None else now
        self.private = KeyFolder(self.folder / "keys")
        self.keys: dict[str, list[Key]] = {}
        for role in TOP_LEVEL:
            self.draw(role, roots if role == "root" else 1)
        self.roles = SignedRoles(self.folder / "tuf", Keys([self.private]), TrustConfig())
        self.roles.begin(self.keys, threshold, self.now)
        for task in tasks:
            self.roles.delegate(TaskId(task), self.draw(role_of(TaskId(task))), 1, self.now)

    @property
    def root(self) -> bytes:
        """The first root: what devices are commissioned with."""
        return self.files()["1.root"]

    def files(self) -> dict[str, bytes]:
        """Everything, by name."""
        return self.roles.files()

    def draw(self, role: str, count: int = 1) -> list[Key]:
        """New keys for a role, which it does not use yet."""
        self.keys[role] = [self.private.make(role) for _ in range(count)]
        return self.keys[role]

    def release(self, manifest: ReleaseManifest) -> bytes:
        """List a release; return its manifest as it is published."""
        data = encode_manifest(manifest)
        self.roles.list_release(manifest.task.task_id, manifest.counter, data, self.now)
        return data

    def prove(self, manifest: ReleaseManifest) -> tuple[bytes, Proof]:
        """List a release; return its manifest and what a device keeps to prove it."""
        data, task = self.release(manifest), manifest.task.task_id
        now, files = datetime.fromtimestamp(self.now, timezone.utc), self.files()
        return data, proven(refreshed(rotated(commissioned(self.root), files), files, task, now), task, data, now)[1]

    def signed_by(self, keys: Sequence[Key], name: str, change: Callable[[Any], None] = lambda _: None) -> bytes:
        """A file as it is, with a change, signed by other keys."""
        metadata: Metadata[Any] = Metadata.from_bytes(self.files()[name])
        change(metadata.signed)
        metadata.signatures.clear()
        for signer in Keys([self.private]).signers([key.keyid for key in keys]):
            metadata.sign(signer, append=True)
        return metadata.to_bytes()


def mixed(new: Mapping[str, bytes], **old: bytes) -> dict[str, bytes]:
    """Files of which some are replaced; ``_`` in a name stands for ``-``."""
    return {**new, **{name.replace("_", "-"): data for name, data in old.items()}}
