"""A release's description: which files, for which tier, of which task. Owns no signature (`signing`) and no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_protocol.blobs import BlobRef
from edge_protocol.errors import IncompatibleError, RemoteProtocolError, RoadcastError
from edge_protocol.fields import Count, Name, Seconds, Sha256, Text, Values, check_finite
from edge_protocol.task import TaskSpec, Tier

MAX_DELTAS = 4
SCALE = ":scale"
"""Behind the name of a weight that a payload holds in whole steps: the name of the steps' sizes."""
VARIANTS = ("int8-cpu", "int8-trt")
"""Of an artifact, beside the plain one; a device takes no other, and a server releases no other."""


class Delta(msgspec.Struct, frozen=True, array_like=True):
    """A way to the weights of an artifact from those of an earlier release.

    Attributes:
        base: hash of the weights payload to begin with.
        blob: the difference, as `edge_protocol.delta` writes it.
    """

    base: Sha256
    blob: BlobRef


class Artifact(msgspec.Struct, frozen=True, array_like=True):
    """The files of one tier, in one variant.

    Attributes:
        tier: which boards it fits.
        student: name of the architecture.
        template: ONNX graph with replaceable initializers; rarely changes.
        weights: safetensors of named initializers for that template, some in steps of a `SCALE`; changes every release.
        golden: safetensors of ``inputs`` and the ``features`` and ``logits`` they must give.
        parameters: number of weights.
        deltas: shorter ways to `weights` for devices that run an earlier release.
        variant: what it is made for, such as ``int8-cpu``; "" for the plain one, which runs everywhere.
    """

    tier: Tier
    student: Name
    template: BlobRef
    weights: BlobRef
    golden: BlobRef
    parameters: Count
    deltas: Annotated[tuple[Delta, ...], Meta(max_length=MAX_DELTAS)] = ()
    variant: Name = ""

    def delta_from(self, weights: str) -> BlobRef | None:
        """The difference from a weights payload, if there is one."""
        return next((delta.blob for delta in self.deltas if delta.base == weights), None)


class ReleaseManifest(msgspec.Struct, frozen=True, array_like=True):
    """A signed, numbered set of artifacts for a task.

    Attributes:
        counter: counts up from 1 per task; a device never goes back by itself.
        task: the whole task, so that preprocessing and label space travel with the weights.
        created_s: seconds since 1970.
        artifacts: of each tier the plain one, then its variants: who knows no variants takes the first.
        metrics: what the judge measured, per tier and overall.
        round: the round that made it; 0 for the first release.
        notes: for people.
    """

    fleet: Name
    counter: Annotated[int, Meta(ge=1, le=2**53)]
    task: TaskSpec
    created_s: Seconds
    artifacts: Annotated[tuple[Artifact, ...], Meta(min_length=1, max_length=16)]
    metrics: Values
    round: Count = 0
    notes: Text = ""

    def __post_init__(self) -> None:
        check_finite(self.metrics)

    def artifact_for(self, tier: Tier, variants: Sequence[str] = ()) -> Artifact:
        """The files for a tier: of its variants the first that is there, else the plain one.

        Raises:
            IncompatibleError: the release has none for it.
        """
        for variant in (*variants, ""):
            for artifact in self.artifacts:
                if (artifact.tier, artifact.variant) == (tier, variant):
                    return artifact
        tiers = ", ".join(artifact.tier for artifact in self.artifacts)
        raise IncompatibleError(
            f"release {self.counter} of {self.task.name!r} has no artifact for tier {tier!r}; it has {tiers}"
        )

    def artifact_of(self, tier: Tier, weights: str) -> Artifact | None:
        """The files for a tier that have this weights payload, whatever their variant."""
        return next((a for a in self.artifacts if a.tier == tier and a.weights.sha256 == weights), None)

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """Every blob the release names, each once."""
        found = {ref.sha256: ref for a in self.artifacts for ref in (a.template, a.weights, a.golden)}
        found |= {delta.blob.sha256: delta.blob for a in self.artifacts for delta in a.deltas}
        return tuple(found.values())


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(ReleaseManifest)


def encode_manifest(manifest: ReleaseManifest) -> bytes:
    """Write the manifest as the bytes that are signed."""
    return _encoder.encode(manifest)


def decode_manifest(data: bytes) -> ReleaseManifest:
    """Read a manifest whose signature has been checked.

    Raises:
        RemoteProtocolError: ``malformed``.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RoadcastError, ValueError, RecursionError) as error:
        raise RemoteProtocolError("malformed", f"release manifest: {error}") from error
