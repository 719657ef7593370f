"""Roadcast's own rule: a mixture of what devices know, weighed by what they say about samples whose answer is known.

**Classes.** A device says how much likelier a sample is among its own samples of class c than among the proxies; with
its mean over the proxies set to 1 that is a density ratio r_ic(x), whatever the device claims about itself. With the
shared model's S_c and its class shares π_c as one more component,

    r_c(x) = Σ_i w_ic r_ic(x) + w_0c S_c(x) / π_c        p(c | x) ∝ π_c r_c(x)

Trust w_ic is that of the mixture which makes hidden anchors of class c likeliest; proxies that the shared model takes
for c count a little, with the shared model itself neutral there. One that repeats the shared model, errors and all, is
likely too, and would have everybody learn nothing: what it has goes to the other devices. Old reports lose weight,
nobody gets more than the cap, and what is taken away there goes to the shared model, which also holds the share s of
the teacher.

**Forecasts** are weighed by the same trust, per horizon. Where among the samples a device's share lies, its precision
(between bounds) says; how large it is on average that does not, as with ratios whose mean is 1. No mean is heard from
further away than the shared model holds possible, so that even a small share cannot carry the teacher off.

Mixtures of distributed experts: Jacobs et al. 1991; ratios instead of outputs: ADR-0008. Ageing buffers of answers:
after FedBuff, Nguyen et al. 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from broker_server.strategies.base import F4, Ballot, Fusion, HiddenAnchors, Opinion, Strategy, opinion_of
from broker_server.strategies.mixture import mixture_weights
from broker_server.strategies.ratios import I8, Ratios, blocks, stacked
from edge_protocol.ids import DeviceId
from edge_protocol.messages import ClassVotes

SHARPEST, FURTHEST = 2.0, 3.0
"""A forecaster is heard with a spread within this factor of the shared model's: the floor, and the ceiling, on spread;
and with a mean within so many of the shared model's spreads of its own."""
CONCENTRATED = 4.0
"""Largest share of a forecaster on a sample, in those of its mean share."""
NOVELTY = 8
"""How steeply trust falls with the share of the shared model's errors that a device repeats: a power of the rest."""
SOFT_LABEL = 0.1
"""What a proxy counts beside an anchor when trust is learnt, times the shared model's probability of its class."""
PRIOR_STRENGTH = 0.3
"""How many anchors of a class the belief that all holders are alike is worth."""


class FedDistill(Strategy):
    """Mixture of density ratios or forecasts, with learnt trust, age decay, a cap, and the shared model as a voter."""

    def teacher(self) -> Opinion:
        """Fuse what was added."""
        if not len(self):
            return self.shared
        return self._forecasts() if self.shared.spread is not None else self._classes()

    def trust(self) -> dict[DeviceId, float]:
        """Mean share of each device over classes, or over horizons and samples."""
        if not len(self):
            return {}
        shares = self._shares() if self.shared.spread is not None else self.class_weights()
        return {device: float(share.mean()) for device, share in zip(self.devices(), shares, strict=False)}

    def _classes(self) -> Opinion:
        shared, decoded = self.shared.value, self.decoded()
        weights, shares = self._class_weights(decoded), shared.mean(0)
        ratios = weights[-1] * shared / shares
        for block in decoded:
            ratios += block.weighted(weights[block.devices])
        joint = shares * ratios
        posterior = joint / joint.sum(1, keepdims=True)
        held_back = np.float32(self.settings.shared_share)
        return Opinion(np.asarray((1 - held_back) * posterior + held_back * shared, np.float32))

    def class_weights(self) -> F4:
        """(n + 1, C) float32: share of each device, and last of the shared model, in each class; columns sum to 1."""
        return self._class_weights(self.decoded())

    def decoded(self) -> Sequence[Ratios]:
        """What the devices said of classes, as density ratios, in the devices' order."""
        return list(blocks(self._votes()))

    def _class_weights(self, decoded: Sequence[Ratios]) -> F4:
        shared, votes = self.shared.value, self._votes()
        classes = shared.shape[1]
        anchors = self.anchors or HiddenAnchors(np.zeros(0, np.int64), np.zeros(0, np.int64))
        truth, believed = anchors.truth.astype(np.int64), shared.argmax(1)
        spoken = np.array([each.samples - each.density.data.count(0) for each in votes])
        held = stacked([each.held.data for each in votes]).astype(np.float32) * (spoken > 0)[:, None]
        mix, known_mix = (np.bincount(each, minlength=classes) for each in (believed, believed[anchors.rows]))
        like_known = (known_mix / np.maximum(mix, 1))[believed].astype(np.float32)
        agreement = np.zeros(len(held), np.float32)
        likelihood = np.ones((len(held) + 1, len(truth) + len(shared)), np.float32)
        known, soft = np.hsplit(likelihood, [len(truth)])
        for block in decoded:
            known[block.devices] = block.picked(anchors.rows, truth)
            soft[block.devices] = block.picked(slice(None), believed)
            agreement[block.devices] = block.agreement(believed, like_known)
        known[-1] = (shared / shared.mean(0))[anchors.rows, truth]
        weights = np.zeros((len(held) + 1, classes), np.float32)
        for c in range(classes):
            sure, likely = np.flatnonzero(truth == c), np.flatnonzero(believed == c)
            counts = np.append(np.ones(len(sure), np.float32), SOFT_LABEL * shared[likely, c])
            prior = np.append(held[:, c], np.float32(1))
            if len(sure):
                about = likelihood.take(np.append(sure, len(truth) + likely), axis=1)
                weights[:, c] = mixture_weights(about, counts, prior, PRIOR_STRENGTH)
            elif len(truth):
                weights[-1, c] = 1  # nobody can be judged
            else:
                weights[:, c] = prior / prior.sum()
        return self._bounded(_for_news(weights, agreement, spoken, believed[anchors.rows] == truth))

    def _votes(self) -> list[ClassVotes]:
        """What the devices said, in their order; only levels have a density to compare."""
        votes = [ballot.votes for ballot in self.ballots()]
        if strange := next((each for each in votes if not isinstance(each, ClassVotes)), None):
            raise TypeError(f"feddistill fuses density levels, not {type(strange).__name__}")
        return cast("list[ClassVotes]", votes)

    def _bounded(self, weights: F4) -> F4:
        """Age, then cap the devices' weights; the shared model gets what they lose."""
        ages = np.array([ballot.age for ballot in self.ballots()])
        faded = weights[:-1] * (0.5 ** (ages / self.settings.half_life))[:, None]
        capped = np.minimum(faded, self.settings.device_cap)
        return np.concatenate([capped, 1 - capped.sum(0, keepdims=True)]).astype(np.float32)

    def _forecasts(self) -> Opinion:
        fusion, left = Fusion(), np.ones_like(self.shared.value)
        for ballot, share in zip(self.ballots(), self._shares(), strict=True):
            left = left - share
            fusion.add(self._heard(ballot), share)
        fusion.add(self.shared, np.maximum(left, 0.0))
        return fusion.result()

    def _shares(self) -> Iterator[F4]:
        """Each device's share of the teacher on each sample and horizon, (N, H) float32 ≥ 0."""
        trust = self._horizon_weights()[:-1]
        weights = [self._forecast_weight(ballot) * t for ballot, t in zip(self.ballots(), trust, strict=True)]
        total = np.maximum(np.sum(weights, axis=0), 1.0)
        for weight in weights:
            yield (1 - self.settings.shared_share) * np.minimum(weight / total, self.settings.device_cap)

    def _heard(self, ballot: Ballot) -> Opinion:
        """What a device said, within the bounds that the shared model sets."""
        said, shared = opinion_of(ballot.votes), self.shared
        assert shared.spread is not None
        assert said.spread is not None
        furthest = FURTHEST * shared.spread
        mean = said.value.clip(shared.value - furthest, shared.value + furthest)
        return Opinion(mean, said.spread.clip(shared.spread / SHARPEST, shared.spread * SHARPEST))

    def _forecast_weight(self, ballot: Ballot) -> F4:
        """Where a device asks to be heard, (N, H) float32 ≥ 0: its mean over the samples is at most that of its age."""
        heard = self._heard(ballot)
        assert self.shared.spread is not None
        assert heard.spread is not None
        asked = (self.shared.spread / heard.spread) ** 2
        even = (asked / np.maximum(asked.mean(0), 1e-6)).clip(None, CONCENTRATED)
        return np.asarray(even * np.float32(0.5 ** (ballot.age / self.settings.half_life)))

    def _horizon_weights(self) -> F4:
        """(n + 1, H) float32: share of each device, and last of the shared model, in the mixture at each horizon.

        Errors on hidden anchors, in the shared model's spreads, are taken for a Laplace distribution's: the spread that
        a device claims says nothing here, and large errors that are rare cost more than in a mixture of Gaussians.
        """
        assert self.shared.spread is not None
        voices = [*(opinion_of(ballot.votes) for ballot in self.ballots()), self.shared]
        horizons = self.shared.value.shape[1]
        weights = np.full((len(voices), horizons), 1 / len(voices), np.float32)
        if self.anchors is None:
            return weights
        truth = self.anchors.truth.astype(np.float64)
        for h in range(horizons):
            measured = np.flatnonzero(~np.isnan(truth[:, h]))
            at = self.anchors.rows[measured]
            if len(at):
                spread = self.shared.spread[at, h]
                errors = np.stack([np.abs(truth[measured, h] - voice.value[at, h]) / spread for voice in voices])
                density = np.exp(-errors)
                likelihood = (density / np.maximum(density.mean(0), 1e-30)).astype(np.float32)
                ones = np.ones(len(voices), np.float32)
                weights[:, h] = mixture_weights(likelihood, np.ones(len(at), np.float32), ones, PRIOR_STRENGTH)
        return weights


def _for_news(weights: F4, agreement: F4, spoken: I8, right: npt.NDArray[np.bool_]) -> F4:
    """The same weights (n + 1, C), with what devices have in a class shared out anew to those that add something.

    Whoever knows the answers names the shared model's classes as often as that is right. A device that does it more
    often, by two standard errors of what the anchors and its own samples tell, repeats the shared model's errors. Where
    the anchors do not tell that the shared model errs at all, nobody is said to.

    Args:
        weights: of the devices, and last of the shared model.
        agreement: (n,) how much of what each device says names the class that the shared model names.
        spoken: (n,) int64, of how many samples it speaks.
        right: (A,) whether the shared model is, of each hidden anchor.
    """
    share = (np.count_nonzero(right) + 1) / (len(right) + 2)
    error = np.sqrt(share * (1 - share) * (1 / (len(right) + 2) + 1 / np.maximum(spoken, 1)))
    wrong = 1 - share - 2 * error
    news = np.divide(1 - agreement, wrong, out=np.ones_like(wrong), where=wrong > 0)
    told = weights[:-1] * np.minimum(news, 1)[:, None] ** NOVELTY
    before, after = weights[:-1].sum(0), told.sum(0)
    told *= np.divide(before, after, out=np.zeros_like(after), where=after > 0)
    return np.concatenate([told, 1 - told.sum(0, keepdims=True)]).astype(np.float32)
