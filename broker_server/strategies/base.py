"""What every fusing rule is: ballots in, one teacher out. Owns decoding and the sum; owns no rule.

A strategy keeps each device's newest ballot as it came (three bytes a sample of a classifier), so a second ballot of a
device replaces its first, and the order of arrival does not matter. A rule that weighs devices against each other needs
several times that while it makes a teacher: `benchmarks.learning.aggregate` measures how much.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from broker_server.distil_job import DistilSettings
from edge_protocol.ids import DeviceId
from edge_protocol.messages import ClassVotes, ForecastVotes
from edge_protocol.votes import class_odds, forecast_values

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Opinion:
    """What somebody (a device, the shared model, the teacher) says about every sample asked.

    Attributes:
        value: (N, C) float32 probabilities; or (N, H) float32 means, in units of the sample's own spread.
        spread: None for classes; (N, H) float32 standard deviations > 0.
    """

    value: F4
    spread: F4 | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> Opinion:
        """The opinion on some of the samples."""
        return Opinion(self.value[rows], None if self.spread is None else self.spread[rows])


@dataclass(frozen=True, eq=False)
class SoftVotes:
    """Whole probabilities or forecasts, as devices of other methods send them; they stay within simulations."""

    opinion: Opinion


Votes = ClassVotes | ForecastVotes | SoftVotes


@dataclass(frozen=True, eq=False)
class HiddenAnchors:
    """Samples among those asked whose answer only the server knows.

    Attributes:
        rows: (A,) int64, which of the samples asked they are.
        truth: (A,) int64 classes; or (A, H) float32, NaN missing.
    """

    rows: npt.NDArray[np.int64]
    truth: npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Ballot:
    """A device's newest votes, and how many rounds old they are."""

    votes: Votes
    age: int


class Strategy(ABC):
    """A rule that fuses ballots into a teacher.

    Attributes:
        shared: what the current shared model says about the same samples.
        settings: of the distillation.
        anchors: hidden among the samples; None when there are none.
    """

    def __init__(self, shared: Opinion, settings: DistilSettings, anchors: HiddenAnchors | None = None) -> None:
        self.shared = shared
        self.settings = settings
        self.anchors = anchors
        self._ballots: dict[DeviceId, Ballot] = {}

    def add(self, device: DeviceId, votes: Votes, age: int = 0) -> None:
        """Take a device's ballot in place of the one it cast before."""
        self._ballots[device] = Ballot(votes, max(age, 0))

    def __len__(self) -> int:
        return len(self._ballots)

    def ballots(self) -> Iterator[Ballot]:
        """The ballots, one per device, in the order of the devices' names."""
        return (self._ballots[device] for device in sorted(self._ballots))

    def devices(self) -> list[DeviceId]:
        """Whose ballots these are, in the same order."""
        return sorted(self._ballots)

    @abstractmethod
    def teacher(self) -> Opinion:
        """Fuse what was added; the shared model's own opinion when nothing was."""

    def trust(self) -> dict[DeviceId, float]:
        """How much each device counts in the teacher, 0 to 1; empty for rules that do not weigh."""
        return {}


class Fusion:
    """A weighted mean of opinions, summed one at a time: probabilities, or first and second moments of forecasts."""

    def __init__(self) -> None:
        self._moments: list[npt.NDArray[np.float64]] = []
        self._weight: npt.NDArray[np.floating] | float = 0.0

    def add(self, opinion: Opinion, weight: npt.NDArray[np.floating] | float) -> None:
        """Add an opinion.

        Args:
            opinion: of N proxies.
            weight: a number, (N, 1) or (N, H), ≥ 0.
        """
        moments: list[npt.NDArray[np.floating]] = [opinion.value]
        if opinion.spread is not None:
            moments.append(np.square(opinion.value, dtype=np.float64) + np.square(opinion.spread, dtype=np.float64))
        self._moments = self._moments or [np.zeros(opinion.value.shape) for _ in moments]
        self._moments = [total + weight * moment for total, moment in zip(self._moments, moments, strict=True)]
        self._weight = np.asarray(self._weight + weight)

    def result(self) -> Opinion:
        """The fused opinion; voices that disagree widen a forecast's spread."""
        value, *second = (total / self._weight for total in self._moments)
        if not second:
            return Opinion(value.astype(np.float32))
        spread = np.sqrt(np.maximum(second[0] - value**2, 1e-8))
        return Opinion(value.astype(np.float32), spread.astype(np.float32))


def opinion_of(votes: Votes) -> Opinion:
    """Decode votes: a classifier's as probabilities among the classes that it holds, a forecaster's as they are."""
    if isinstance(votes, SoftVotes):
        return votes.opinion
    if isinstance(votes, ForecastVotes):
        mean, spread = forecast_values(votes)
        return Opinion(mean, spread)
    odds = class_odds(votes)
    total = odds.sum(1, keepdims=True)
    return Opinion(np.where(total > 0, odds / np.maximum(total, 1e-9), 1 / odds.shape[1]).astype(np.float32))
