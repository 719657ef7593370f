"""A fleet's answers over the rounds of a run: who is there, what is said and what it costs to say it.

Owns the setting of a run and what each device said last; owns no rule and no student.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.learning.attackers import ATTACKS, Attack
from benchmarks.learning.fleet import F4, U1, World, message_of, odds_of, views
from broker_server.distil_job import DistilSettings
from broker_server.strategies import Strategy
from edge_client.trainer import PROXY_VIEWS
from edge_models.students import Student
from edge_protocol.arrays import Array, pack, unpack
from edge_protocol.ids import DeviceId
from edge_protocol.task import TIERS, Tier
from edge_protocol.votes import ClassVotes, class_votes


@dataclass(frozen=True)
class Setting:
    """What all methods of a run share.

    Attributes:
        alpha: Dirichlet concentration of the classes over the devices.
        devices, rounds: how many.
        steps, first_steps: of the optimiser per student, in a round and for the first release.
        local_steps: at most, of a device that trains a whole student, in a round.
        offline: share of the devices that are away in a round, drawn anew in each.
        attack, liars: what dishonest devices do (`attackers.ATTACKS`), and their share of the fleet.
    """

    alpha: float = 0.1
    devices: int = 12
    rounds: int = 20
    steps: int = 150
    first_steps: int = 400
    local_steps: int = 2000
    offline: float = 0.0
    attack: str = ""
    liars: float = 0.0

    def distil(self, seed: int) -> DistilSettings:
        """The product's settings, but for the number of steps."""
        return DistilSettings(steps=self.steps, first_steps=self.first_steps, seed=seed)


Watch = Callable[[int, Strategy, Mapping[DeviceId, F4]], None]
"""Sees each round's number, its strategy with the ballots, and the odds (N, C) that fresh ones were rounded from."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The fleet's answers over the rounds: whoever is away leaves its last ones, and dishonest devices lie."""

    world: World
    setting: Setting
    seed: int
    watch: Watch
    last: dict[int, tuple[int, ClassVotes]] = field(default_factory=dict)
    bytes_up: list[int] = field(default_factory=list)

    def collect(
        self,
        students: Mapping[Tier, Student],
        x: torch.Tensor,
        number: int,
        strategy: Strategy,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Ask every device that is there, and hand everything that still counts to the strategy.

        Args:
            students: as released.
            x: (N, *shape) float32, what devices have of the server's.
            number: of the round.
            strategy: takes the votes.
            rows: which of x are told; all by default, and the same ones as long as a device's last votes count.
        """
        theirs = {tier: views(student, x, PROXY_VIEWS, number) for tier, student in students.items()}
        exact = {}
        for at in there(len(self.world.devices), self.setting, self.seed, number):
            tier, own = TIERS[at % len(TIERS)], self.world.devices[at]
            odds, held = odds_of(own, students[tier], theirs[tier], number=number, at=at)
            exact[device_at(at)] = odds = odds if rows is None else odds[rows]
            self._say(at, odds, held, number)
        said = {at: votes for at, (_, votes) in self.last.items()}
        if self.setting.attack:
            rng = np.random.default_rng([self.seed, number, len(self.world.devices)])
            said = ATTACKS[self.setting.attack](Attack(said, self.liars, strategy.shared.value, rng))
        for at, votes in said.items():
            strategy.add(device_at(at), votes, number - self.last[at][0])
        self.watch(number, strategy, exact)

    def _say(self, at: int, odds: F4, held: U1, number: int) -> None:
        """Round to levels beside the last ones, and count the bytes of telling so."""
        told, before = self.last.get(at, (0, None))
        votes = class_votes(odds, held, before)
        pair = (shuffled(votes), None if before is None else shuffled(before))
        self.bytes_up.append(len(message_of(device_at(at), number, *pair, told)))
        self.last[at] = (number, votes)

    @property
    def liars(self) -> set[int]:
        """The dishonest ones; a larger share of the same fleet includes a smaller one's."""
        count = len(self.world.devices)
        order = np.random.default_rng(self.seed).permutation(count)
        return set(order[: round(count * self.setting.liars)].tolist())


def device_at(at: int) -> DeviceId:
    """The device at a place of the fleet."""
    return DeviceId(f"camera-{at:02d}")


def shuffled(votes: ClassVotes) -> ClassVotes:
    """The votes with their samples in an order that says nothing of classes, as the product's proxies travel."""
    order = np.random.default_rng(0).permutation(votes.samples)

    def moved(array: Array) -> Array:
        return pack(unpack(array)[order])

    return ClassVotes(moved(votes.classes), moved(votes.confidence), moved(votes.density), votes.held)


def there(count: int, setting: Setting, seed: int, number: int) -> list[int]:
    """Places of the devices that are there in a round; the same ones for every method."""
    order = np.random.default_rng([seed, number]).permutation(count)
    return sorted(order[: round(count * (1 - setting.offline))].tolist())
