"""Measures releases and devices on held-out data with the runner that devices use. Owns no training and no process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from devices.packs import ImagePack, SeriesPack, open_pack
from devices.preprocess import Preprocess, PreprocessConfig
from devices.runners.base import F4, Answer
from devices.runners.ort_runner import OrtRunner
from edge_models.habits import sensor_numbers
from edge_models.head_weights import HeadWeights
from edge_models.samples import Samples
from edge_models.scales import Scale
from edge_models.tasks import load_task, plugin_of
from edge_models.windows import cut_with_ends
from edge_protocol.errors import DataError
from edge_protocol.manifest import ReleaseManifest
from edge_protocol.task import ImageInput, TaskSpec, Tier
from roadcast.demo.fleet import Member
from roadcast.demo.outcome import DeviceScore, ReleaseScore, Scores
from roadcast.demo.partition import Shares

BATCH = 256
STRIDE = 2
"""Held-out series are scored at every second window: neighbours tell the same."""


@dataclass(frozen=True, eq=False)
class Held:
    """Held-out samples, ready for a student.

    Attributes:
        inputs: (N, *input shape) float32.
        samples: the same, with targets and scale.
    """

    inputs: F4
    samples: Samples


def held_out(spec: TaskSpec, test: Path, past: Path, preprocess: PreprocessConfig | None = None) -> Held:
    """Open held-out samples as a device would see them.

    Args:
        spec: the task.
        test: pack of images, or of the series' last part.
        past: pack of the same sensors' history, for their level and spread; not read for images.
        preprocess: the device's own correction.

    Raises:
        DataError: a pack cannot be read, or is of another kind than the task.
    """
    pack = open_pack(test)
    if isinstance(spec.input, ImageInput) and isinstance(pack, ImagePack):
        prepare = Preprocess(spec.input, preprocess)
        raw = np.stack([prepare.raw(image) for image in pack.images])
        return Held(prepare.batch(raw), Samples.of(raw, pack.labels, side=pack.side))
    history = open_pack(past)
    if not isinstance(pack, SeriesPack) or not isinstance(history, SeriesPack):
        raise DataError(f"{test}: holds something else than task {spec.name!r} takes")
    scale, numbers = Scale.fit(history.values), sensor_numbers(pack.sensors)
    samples, _ = cut_with_ends(pack.values, pack.time_s, spec, scale, stride=STRIDE, side=numbers)
    samples = samples.take(samples.labelled)
    return Held(np.ascontiguousarray(samples.raw, np.float32), samples)


def answer(template: bytes, weights: bytes, inputs: F4) -> Answer:
    """What a student says about (N, *input shape) float32."""
    with OrtRunner(template, weights) as runner:
        parts = [runner.infer(inputs[at : at + BATCH]) for at in range(0, len(inputs), BATCH)]
    return Answer(np.concatenate([p.features for p in parts]), np.concatenate([p.logits for p in parts]))


class Judged:
    """Releases of one task on held-out data.

    Args:
        manifests: every release, oldest first.
        blobs: the server's blob folder.
    """

    def __init__(self, manifests: Sequence[ReleaseManifest], blobs: Path) -> None:
        self.manifests = {manifest.counter: manifest for manifest in manifests}
        self.spec = load_task(manifests[0].task.name)
        self._plugin = plugin_of(self.spec)
        self._blobs = blobs

    def releases(self, held: Held) -> Iterator[ReleaseScore]:
        """Score every tier of every release."""
        for counter, manifest in self.manifests.items():
            for artifact in [a for a in manifest.artifacts if not a.variant]:
                said = self._answer(counter, artifact.tier, held)
                yield ReleaseScore(
                    task=self.spec.name,
                    release=counter,
                    tier=artifact.tier,
                    student=artifact.student,
                    scores=self._score(said.logits, held),
                )

    def device(self, member: Member, shares: Shares, heads: Path) -> DeviceScore:
        """Score one device at the first and the last release.

        Args:
            member: the device.
            shares: where its packs are.
            heads: folder of the personal heads that were kept, ``<release>.safetensors``.
        """
        held = held_out(
            self.spec,
            shares.device(member.name, "test"),
            shares.device(member.name, "commissioning"),
            msgspec.convert(dict(member.preprocess), PreprocessConfig),
        )
        first, last = min(self.manifests), max(self.manifests)
        before, after = (self._answer(counter, member.tier, held) for counter in (first, last))
        return DeviceScore(
            device=member.name,
            task=member.task,
            tier=member.tier,
            conditions=", ".join(member.conditions) or "its own road",
            first=first,
            last=last,
            before_shared=self._headline(before.logits, held),
            before_own=self._own(before, held, heads / f"{first}.safetensors"),
            after_shared=self._headline(after.logits, held),
            after_own=self._own(after, held, heads / f"{last}.safetensors"),
        )

    def _answer(self, counter: int, tier: Tier, held: Held) -> Answer:
        artifact = self.manifests[counter].artifact_for(tier)
        template, weights = ((self._blobs / ref.sha256).read_bytes() for ref in (artifact.template, artifact.weights))
        return answer(template, weights, held.inputs)

    def _own(self, said: Answer, held: Held, head: Path) -> float | None:
        if not head.is_file():
            return None
        own = HeadWeights.from_bytes(head.read_bytes())
        return self._headline(own.answer(said.features, held.samples), held)

    def _headline(self, logits: F4, held: Held) -> float:
        return self._score(logits, held)[self._plugin.headline]

    def _score(self, logits: F4, held: Held) -> Scores:
        return self._plugin.score(self.spec, logits, held.samples.targets, held.samples.scale)
