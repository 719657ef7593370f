"""What a deployment is about: the release that runs, the one wanted, whether it suits and what came of it; pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge_protocol.blobs import BlobRef
from edge_protocol.errors import IncompatibleError
from edge_protocol.manifest import Artifact, ReleaseManifest
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.trust import Proof

MAX_ATTEMPTS = 3
"""Loads of a release that may end in a crash of the agent before it is left alone."""


class Offered(msgspec.Struct, frozen=True):
    """The release that this device is to run, proven by signed metadata.

    Attributes:
        data: the manifest as it was signed.
        manifest: the same, read.
        proof: why it is trusted.
    """

    data: bytes
    manifest: ReleaseManifest
    proof: Proof


class Unproven(msgspec.Struct, frozen=True):
    """A release was offered, and nothing that came proves it so far."""

    data: bytes
    reason: str


class Running(msgspec.Struct, frozen=True):
    """What answers frames: release counter (0: none) and hash of the weights payload."""

    release: int = 0
    weights: str = ""


def hashes_of(artifact: Artifact) -> set[str]:
    """Of the files that a device keeps of an artifact."""
    return {artifact.template.sha256, artifact.weights.sha256, artifact.golden.sha256}


class Offer(msgspec.Struct, frozen=True):
    """A release that passed every check that needs no file; what is taken of it, and the plain artifact behind that."""

    counter: int
    offered: Offered
    artifact: Artifact
    plain: Artifact

    def files(self, delta: BlobRef | None) -> list[BlobRef]:
        """Everything that may have been fetched for it, `delta` among them."""
        files = self.artifact
        return [files.template, files.weights, files.golden, *([delta] if delta else [])]


class Installed(msgspec.Struct, frozen=True):
    """The pointer names the candidate, and it answers frames."""

    release: int


class InstallFailed(msgspec.Struct, frozen=True):
    """The disk refused the pointer: the release that ran still runs."""

    release: int
    reason: str


def judge(manifest: ReleaseManifest, fleet: str, spec: TaskSpec, tier: Tier, attempts: Mapping[int, int]) -> Artifact:
    """The plain files of a release for a device.

    Args:
        manifest: of the release.
        fleet: the device's.
        spec: the device's task.
        tier: the device's.
        attempts: release → loads of it that were never followed by an outcome.

    Raises:
        IncompatibleError: it is of another fleet or task, took the agent down too often, or has nothing for the tier.
    """
    theirs, counter = manifest.task, manifest.counter
    if manifest.fleet != fleet:
        raise IncompatibleError(f"release {counter} is of fleet {manifest.fleet!r}, not {fleet!r}")
    if theirs.name != spec.name or theirs.label_space != spec.label_space:
        raise IncompatibleError(
            f"release {counter} is of task {theirs.name!r} with label space {theirs.label_space}, "
            f"this device does {spec.name!r} with {spec.label_space}"
        )
    if attempts.get(counter, 0) >= MAX_ATTEMPTS:
        raise IncompatibleError(f"release {counter} took the agent down {MAX_ATTEMPTS} times; it is left alone")
    return manifest.artifact_for(tier)
