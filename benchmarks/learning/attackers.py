"""What dishonest devices say on the proxies. They know the shared model's opinion and what every honest device said.

Owns the attacks; none of them breaks the wire's rules, for a report that does is refused and does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_protocol.arrays import pack, unpack
from edge_protocol.votes import CONFIDENCE, ODDS, ClassVotes

F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
Levels = npt.NDArray[np.integer]
SURE, OWN = len(CONFIDENCE) - 1, len(ODDS) - 1
"""The highest levels of confidence and density."""
BLUR = 0.2
"""Share of the samples on which a blurred echo names anything."""
QUIET = 0.3
"""Share of the samples on which a quiet echo hardly says anything."""


@dataclass(frozen=True, eq=False)
class Attack:
    """What attackers can see.

    Attributes:
        said: what each device would honestly say, by its place in the fleet.
        liars: places of the dishonest ones.
        shared: (N, C) float32, the shared model's opinion.
        rng: source of chance.
    """

    said: Mapping[int, ClassVotes]
    liars: set[int]
    shared: F4
    rng: np.random.Generator

    @property
    def honest(self) -> list[ClassVotes]:
        """What honest devices say."""
        return [votes for at, votes in self.said.items() if at not in self.liars]

    def instead(self, lie: Callable[[ClassVotes], ClassVotes]) -> dict[int, ClassVotes]:
        """Everybody's votes, with a lie in the place of every dishonest one's."""
        return {at: lie(votes) if at in self.liars else votes for at, votes in self.said.items()}


def flip(attack: Attack) -> dict[int, ClassVotes]:
    """Every class is called the next one."""
    return attack.instead(lambda votes: _renamed(votes, _next(attack)))


def swap(attack: Attack) -> dict[int, ClassVotes]:
    """Two classes change their names, and nothing else is wrong: the smallest lie that does harm."""
    names = np.arange(attack.shared.shape[1])
    names[:2] = 1, 0
    return attack.instead(lambda votes: _renamed(votes, names))


def least_likely(attack: Attack) -> dict[int, ClassVotes]:
    """The class that is least likely, with all confidence, on every sample as if it were one's own."""
    return attack.instead(lambda _: _loud(attack, attack.shared.argmin(1)))


def constant(attack: Attack) -> dict[int, ClassVotes]:
    """Always the same class, as loudly."""
    return attack.instead(lambda _: _loud(attack, np.zeros(len(attack.shared), np.int64)))


def chance(attack: Attack) -> dict[int, ClassVotes]:
    """Anything."""
    classes = attack.shared.shape[1]

    def level(below: int) -> I8:
        return attack.rng.integers(below, size=len(attack.shared))

    return attack.instead(lambda _: _votes(level(classes), level(SURE + 1), level(OWN + 1), classes))


def copy(attack: Attack) -> dict[int, ClassVotes]:
    """Free riders: what some honest device said, and nothing of their own."""
    honest = attack.honest
    return attack.instead(lambda votes: honest[int(attack.rng.integers(len(honest)))] if honest else votes)


def echo(attack: Attack) -> dict[int, ClassVotes]:
    """Free riders on the shared model: what it says itself, with all confidence, on every sample as if one's own."""
    return attack.instead(lambda _: _loud(attack, attack.shared.argmax(1)))


def blurred_echo(attack: Attack) -> dict[int, ClassVotes]:
    """The same, with any class on a fifth of the samples, so as not to look like it."""
    return attack.instead(lambda _: _loud(attack, _blurred(attack)))


def quiet_echo(attack: Attack) -> dict[int, ClassVotes]:
    """The same, but for what is second likeliest on some samples, said so quietly that it costs nothing."""
    names, second = np.argsort(attack.shared, axis=1)[:, :-3:-1].T
    quiet = attack.rng.random(len(names)) < QUIET
    sure, density = np.where(quiet, 0, SURE), np.where(quiet, 1, OWN)
    lie = _votes(np.where(quiet, second, names), sure, density, attack.shared.shape[1])
    return attack.instead(lambda _: lie)


def hull(attack: Attack) -> dict[int, ClassVotes]:
    """Colluders agree on the least likely of what honest devices say of a sample: never outside of what is honest."""
    loudest = np.zeros(attack.shared.shape, np.int64)
    for votes in attack.honest:
        classes, density = (unpack(array).astype(np.int64) for array in (votes.classes, votes.density))
        rows = np.arange(len(classes))
        loudest[rows, classes] = np.maximum(loudest[rows, classes], density)
    worst = np.where(loudest > 0, attack.shared, np.inf).argmin(1)
    density = loudest[np.arange(len(worst)), worst]
    lie = _votes(worst, np.full(len(worst), SURE), density, attack.shared.shape[1])
    return attack.instead(lambda _: lie)


def adaptive(attack: Attack) -> dict[int, ClassVotes]:
    """Honest on half of the samples, drawn anew in each round, so as to earn trust; `flip` on the others."""

    def lie(votes: ClassVotes) -> ClassVotes:
        names = _next(attack)
        classes = unpack(votes.classes).astype(np.int64)
        mixed: I8 = np.where(attack.rng.random(len(classes)) < 1 / 2, classes, names[classes])
        held = unpack(votes.held).astype(np.uint8)
        density = unpack(votes.density).astype(np.int64)
        both = np.maximum(held, held[np.argsort(names)]).astype(np.uint8)
        return _votes(mixed, unpack(votes.confidence).astype(np.int64), density, len(held), both)

    return attack.instead(lie)


ATTACKS: Mapping[str, Callable[[Attack], dict[int, ClassVotes]]] = {
    "flip": flip,
    "swap": swap,
    "least likely": least_likely,
    "constant": constant,
    "random": chance,
    "copy": copy,
    "echo": echo,
    "blurred echo": blurred_echo,
    "quiet echo": quiet_echo,
    "hull": hull,
    "adaptive": adaptive,
}


def _blurred(attack: Attack) -> I8:
    classes, names = attack.shared.shape[1], attack.shared.argmax(1)
    return np.asarray(
        np.where(attack.rng.random(len(names)) < BLUR, attack.rng.integers(classes, size=len(names)), names)
    )


def _next(attack: Attack) -> I8:
    classes = attack.shared.shape[1]
    return np.asarray((np.arange(classes) + 1) % classes)


def _renamed(votes: ClassVotes, names: I8) -> ClassVotes:
    """The same votes with class c called names[c]."""
    held = unpack(votes.held)
    classes, confidence, density = (
        unpack(array).astype(np.int64) for array in (votes.classes, votes.confidence, votes.density)
    )
    return _votes(names[classes], confidence, density, len(held), held[np.argsort(names)].astype(np.uint8))


def _loud(attack: Attack, classes: I8) -> ClassVotes:
    every = np.ones(len(classes), np.int64)
    return _votes(classes, SURE * every, OWN * every, attack.shared.shape[1])


def _votes(
    classes: Levels, confidence: Levels, density: Levels, outputs: int, held: npt.NDArray[np.uint8] | None = None
) -> ClassVotes:
    """Votes of these levels; whoever says nothing of a sample names no class."""
    speaks = density > 0
    classes, confidence, density = (each.astype(np.uint8) for each in (classes * speaks, confidence * speaks, density))
    known = np.ones(outputs, np.uint8) if held is None else held.astype(np.uint8)
    return ClassVotes(pack(classes), pack(confidence), pack(density), pack(known))
