"""A teacher made of class means alone: no device answers a sample. Owns what class means say, not how they are fused.

Features of different trunks cannot be compared, so class means are fused tier by tier, each in the feature space of its
released trunk, by `fedproto` or `fedtgp`. Whoever tells a class has one voice in it, which fades with age: nobody can
check how many samples a device says are behind a mean. The server's own class means, of its anchors, are one more voice
in each.
What a tier's prototypes say of a sample of the server's is

    p_t(c | x) ∝ exp(-|f_t(x) - P_tc| / τ_t)

with τ_t the one that makes the hidden anchors likeliest; of classes without a prototype the shared model goes on
speaking. Tiers and the shared model are then mixed, with weights that do the same (`mixture`): prototypes that mislead,
whoever spoilt them, lose theirs to the shared model, which holds the share s of the teacher in any case. What is told
crosses tiers as probabilities, never as features.

Prototypes: Tan et al. 2022; a bound on norms against means from nowhere: Sun et al. 2019, "Can you really backdoor
federated learning?"; pools of opinions: Stone 1961.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import F4, F8, Fusion, HiddenAnchors, Opinion, Strategy
from broker_server.strategies.mixture import mixture_weights
from broker_server.strategies.prototypes import PrototypeSharing
from edge_models.nearest_prototype import prototype_logits
from edge_models.prototypes import Prototypes
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import SERVER, DeviceId
from edge_protocol.prototypes import PrototypeReport, told_values
from edge_protocol.task import TaskSpec, Tier

U1 = npt.NDArray[np.uint8]
SHARPNESS = 2.0 ** np.arange(-3, 7)
"""What τ is tried at: one over each of these, times the mean distance to a nearest prototype."""
CAPPING = 12
"""Steps in which voices are cut to the cap; each cuts what is above it to a share of what the last left."""
PARTS = 1e6
"""A share of a class in whole numbers, as the rules weigh by counts."""
PRIOR_STRENGTH = 1.0
"""How many anchors the belief that all tiers and the shared model are alike is worth."""


@dataclass(frozen=True, eq=False)
class Space:
    """What a tier's released trunk makes of the server's samples.

    Attributes:
        asked: (N, K) float32, features of the samples that the teacher speaks of.
        own: class means of the server's labelled anchors.
    """

    asked: F4
    own: Prototypes


@dataclass(frozen=True, eq=False, slots=True)
class Told:
    """What a device told, and how many rounds ago."""

    means: Prototypes
    age: int


class PrototypeTeacher(Strategy):
    """Fuses class means inside tiers, and what they say across them.

    Args:
        kind: the rule that fuses class means.
        spec: the task.
        release: counter of the release whose trunks the spaces are of.
        spaces: of each tier whose released trunk the server has.
        shared, settings, anchors: as for every strategy.
    """

    def __init__(
        self,
        kind: type[PrototypeSharing],
        spec: TaskSpec,
        release: int,
        spaces: Mapping[Tier, Space],
        shared: Opinion,
        settings: DistilSettings,
        anchors: HiddenAnchors | None = None,
    ) -> None:
        super().__init__(shared, settings, anchors)
        self._kind, self._spec, self._release, self._spaces = kind, spec, release, spaces
        self._told: dict[Tier, dict[DeviceId, Told]] = {tier: {} for tier in spaces}
        self._said: dict[Tier, F4] | None = None

    def hear(self, device: DeviceId, report: PrototypeReport, age: int) -> None:
        """Take a device's class means, of the task, in place of those it told before.

        Raises:
            RemoteProtocolError: `reason` is ``other-trunk``.
        """
        if report.release != self._release or report.tier not in self._spaces:
            have = f"{', '.join(self._spaces) or 'no trunk'} of release {self._release}"
            raise RemoteProtocolError(
                "other-trunk", f"class means are of {report.tier} of release {report.release}; the server has {have}"
            )
        means, counts = told_values(report, self._spec.outputs)
        self._told[report.tier][device] = Told(Prototypes(means, (counts > 0).astype(np.uint8)), max(age, 0))
        self._said = None

    def __len__(self) -> int:
        return sum(len(told) for told in self._told.values())

    def teacher(self) -> Opinion:
        """Mix what each tier's prototypes say, and the shared model, by what is known of the hidden anchors."""
        opinions = self._opinions()
        weights, fusion = self._weights(opinions), Fusion()
        fusion.add(self.shared, 1 - float(sum(weights.values())))
        for tier, weight in weights.items():
            fusion.add(Opinion(opinions[tier]), weight)
        return fusion.result()

    def trust(self) -> dict[DeviceId, float]:
        """What share of the teacher each device got: its tier's, by its shares of the classes."""
        weights = self._weights(self._opinions())
        return {
            device: float(weight * share.mean())
            for tier, weight in weights.items()
            for device, share in self._shares(tier).items()
        }

    def prototypes(self, tier: Tier) -> Prototypes:
        """The fused prototypes of a tier."""
        space, shares = self._spaces[tier], self._shares(tier)
        rule = self._kind(self._spec.outputs)
        limit = float(np.linalg.norm(space.asked, axis=1).max())
        shares[DeviceId(SERVER)] = 1 - sum(shares.values(), start=np.zeros(self._spec.outputs, np.float32))
        means = {device: told.means for device, told in self._told[tier].items()} | {DeviceId(SERVER): space.own}
        for device, each in means.items():
            parts = np.maximum(np.rint(shares[device] * PARTS), 1).astype(np.int64)
            rule.add(device, Prototypes(_shortened(each.means, limit), each.held), parts)
        return rule.result()

    def _shares(self, tier: Tier) -> dict[DeviceId, F4]:
        """Share of each device in each class of its tier, (C,) float32: alike but for age, and none above the cap."""
        told, own = self._told[tier], self._spaces[tier].own.held
        life = self.settings.half_life
        voices = np.array([each.means.held * 0.5 ** (each.age / life) for each in told.values()]).reshape(-1, len(own))
        capped = _capped(voices, own, self.settings.device_cap)
        shares = capped / np.maximum(capped.sum(axis=0) + own, 1e-9)
        return dict(zip(told, shares.astype(np.float32), strict=True))

    def _opinions(self) -> dict[Tier, F4]:
        """What the prototypes of each tier that was heard say, (N, C) float32 probabilities."""
        if self._said is None:
            heard = [tier for tier, told in self._told.items() if any(each.means.held.any() for each in told.values())]
            self._said = {tier: self._opinion(tier) for tier in heard}
        return self._said

    def _opinion(self, tier: Tier) -> F4:
        prototypes, shared = self.prototypes(tier), self.shared.value
        held = prototypes.held.astype(bool)
        said = self._calibrated(prototype_logits(self._spaces[tier].asked, prototypes))
        return np.where(held, said * shared[:, held].sum(axis=1, keepdims=True), shared).astype(np.float32)

    def _calibrated(self, logits: F4) -> F4:
        """Probabilities out of minus distances, at the sharpness that makes what is known likeliest."""
        unit = max(float(-logits.max(axis=1).mean()), 1e-9)
        tried = [_softmax(logits * np.float32(sharp / unit)) for sharp in SHARPNESS]
        return max(tried, key=self._likelihood)

    def _likelihood(self, said: F4) -> float:
        """Mean log-likelihood of the hidden anchors, or without any, of what the shared model says."""
        if self.anchors is None:
            return float((self.shared.value * np.log(said.clip(1e-6))).sum(1).mean())
        return float(np.log(said[self.anchors.rows, self.anchors.truth.astype(np.int64)].clip(1e-6)).mean())

    def _weights(self, opinions: Mapping[Tier, F4]) -> dict[Tier, float]:
        """Share of each tier in the teacher; what is missing to 1 is the shared model's."""
        if not opinions:
            return {}
        if self.anchors is None:
            weights = np.full(len(opinions), 1 / (len(opinions) + 1))
        else:
            voices, truth = [*opinions.values(), self.shared.value], self.anchors.truth.astype(np.int64)
            known = np.stack([said[self.anchors.rows, truth] for said in voices])
            likelihood = known / np.maximum(known.mean(0), 1e-9)
            ones, alike = np.ones(len(truth), np.float32), np.ones(len(voices), np.float32)
            weights = mixture_weights(likelihood.astype(np.float32), ones, alike, PRIOR_STRENGTH)[:-1]
        left = 1 - self.settings.shared_share
        bound = min(1.0, left / max(float(weights.sum()), 1e-9))
        return {tier: float(weight * bound) for tier, weight in zip(opinions, weights, strict=True)}


def _softmax(logits: F4) -> F4:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def _capped(voices: F8, own: U1, cap: float) -> F8:
    """Voices (D, C) of which none exceeds a share `cap` of them all and `own` (C,), as far as others leave a choice."""
    limit = voices.max(axis=0, initial=0)
    for _ in range(CAPPING):
        limit = np.minimum(limit, cap * (np.minimum(voices, limit).sum(axis=0) + own))
    return np.asarray(np.minimum(voices, limit))


def _shortened(means: F4, limit: float) -> F4:
    """No mean is longer than the longest feature vector of the server's own: a mean of such vectors never is."""
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means * np.minimum(1, limit / np.maximum(norms, 1e-9)), np.float32)
