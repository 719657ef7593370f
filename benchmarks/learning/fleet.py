"""A fleet of cameras in one process: data dealt out by class and condition, and devices that answer a round.

Owns the partition; how a device answers is the product's own. Classes are dealt to devices in Dirichlet proportions
(Hsu et al. 2019), each device sees its own mixture of conditions, and no vehicle is on two sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from broker_server.distil_job import DistilSettings
from broker_server.distiller import anchor_lesson, answer, cycled, inputs_of, train
from broker_server.proxy_set import Asked
from broker_server.training import Training
from devices.packs import ImagePack
from devices.preprocess import Preprocess
from edge_client.trainer import LEAST_EXAMPLES, OWN_VIEWS
from edge_models.augment import augment
from edge_models.privacy import held_classes
from edge_models.ratio_head import own_odds
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.codec import encode
from edge_protocol.errors import DataError
from edge_protocol.ids import DeviceId
from edge_protocol.task import ImageInput, Tier
from edge_protocol.vote_codec import encode_votes
from edge_protocol.votes import ClassVotes
from roadcast.demo.image_shares import balanced, deal, proportions, under
from roadcast.simulated.conditions import CONDITIONS

SPEC = load_task("vehicle")
KINDS = ("clean", "night", "fog", "blur", "low_resolution", "warm")
F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]
DRAWS = 20_000
LEAST_SHARE = 0.25
"""Every device gets at least this part of an equal share: a camera that never saw a vehicle is none."""
OWN_TEST = 240
"""Held-out images of each device's own test: its classes and conditions in its own shares."""


@dataclass(frozen=True, eq=False)
class World:
    """Everybody's images.

    Attributes:
        anchors, hidden: the server's labelled ones: to train on, and hidden among the proxies.
        proxies: what devices are asked about; their labels are never looked at.
        devices, own_tests: each device's own, and held-out ones in its shares of classes and conditions.
        test: all held-out images, each under two conditions.
    """

    anchors: Samples
    hidden: Samples
    proxies: Samples
    devices: Sequence[Samples]
    own_tests: Sequence[Samples]
    test: Samples

    @property
    def asked(self) -> Asked:
        """What devices are asked about: the proxies, then the hidden anchors."""
        both, count = Samples.concat([self.proxies, self.hidden]), len(self.proxies)
        return Asked(both, np.arange(count), np.arange(count, len(both)), self.anchors)


def deal_world(pack: ImagePack, *, devices: int, alpha: float, seed: int) -> World:
    """Deal a pack out: 120 anchors, 60 hidden anchors, about 1,000 proxies, the rest to the devices."""
    rng = np.random.default_rng(seed)
    rest, held = np.flatnonzero(pack.split == 0), np.flatnonzero(pack.split == 1)
    server: list[Samples] = []
    for count in (120, 60, 1000):
        mine = balanced(pack, rest, count, rng)
        rest = np.setdiff1d(rest, mine)
        server.append(_seen(pack, mine, np.ones(len(KINDS)), rng))
    shares = proportions(len(pack.classes), devices, rng, skew=alpha, least=LEAST_SHARE, draws=DRAWS)
    if shares is None:
        raise DataError(f"no draw at Dirichlet {alpha} gives each of {devices} devices {LEAST_SHARE} of an equal share")
    hands = deal(pack, rest, shares, rng)
    cameras, conditions = [], []
    for hand in hands:
        conditions.append(rng.dirichlet(np.ones(len(KINDS))))
        cameras.append(_seen(pack, hand, conditions[-1], rng))
    anchors, hidden, proxies = server
    test = _seen(pack, np.tile(held, 2), np.ones(len(KINDS)), rng)
    tests = [_seen(pack, _like(pack, held, hand, rng), seen, rng) for hand, seen in zip(hands, conditions, strict=True)]
    return World(anchors, hidden, proxies, cameras, tests, test)


def odds_of(own: Samples, student: Student, theirs: F4, *, number: int, at: int) -> tuple[F4, U1]:
    """What the device at a place of the fleet finds in a round, before it is rounded to levels.

    Args:
        own: its samples.
        student: of its tier, as released.
        theirs: (W, N, K) float32, `views` of what is asked.
        number: of the round.
        at: place; both seed what is random.

    Returns:
        Odds (N, C) float32 of "an own sample of class c" against "a proxy", and the classes held (C,).
    """
    labels = own.targets.astype(np.int64)
    held = held_classes(labels, len(SPEC.labels), LEAST_EXAMPLES)
    known = np.isin(labels, np.flatnonzero(held))
    mine = views(student, inputs_of(own.take(known), SPEC), OWN_VIEWS, number)
    return own_odds(mine, labels[known], theirs, len(SPEC.labels), seed=100 * number + at) * held, held


def message_of(device: DeviceId, number: int, votes: ClassVotes, base: ClassVotes | None, told: int) -> bytes:
    """The whole message that tells votes beside those of the round `told`, as it goes to the broker."""
    header = m.Header("roadside", device, bytes(16), bytes(8), number, 1.79e9, True)  # noqa: FBT003 - the wire's order
    coded = encode_votes(votes, base, told)
    return encode(header, m.CodedReport(SPEC.name, SPEC.label_space, number, number, bytes(8), 500, coded))


def views(student: Student, x: Tensor, count: int, seed: int) -> F4:
    """Features (count, N, K) float32 of samples as they are, then of varied copies."""
    generator = torch.Generator().manual_seed(seed)
    varied = (augment(x, SPEC.input, generator) for _ in range(count - 1))
    return np.stack([answer(student, x)[0], *(answer(student, view)[0] for view in varied)])


@lru_cache(maxsize=16)
def first_student(tier: Tier, labelled: Samples, settings: DistilSettings) -> Student:
    """A student that has learnt from labelled samples alone, in one cycle of ``first_steps``; not to be trained on.

    The server's own are the first release, the same one for all methods.
    """
    training = Training(build_student(SPEC, tier, settings.seed), SPEC, torch.device("cpu"))
    lesson, pace = anchor_lesson(labelled, SPEC, weight=1.0, batch=settings.batch), settings.first_learning_rate
    steps = settings.first_steps
    train(training, [lesson], settings, steps, cycled(pace, steps), progress=lambda *_: None)
    return training.average


def _like(pack: ImagePack, held: I8, hand: I8, rng: np.random.Generator) -> I8:
    """Held-out images, with replacement, in a hand's shares of classes."""
    share = np.bincount(pack.labels[hand], minlength=len(pack.classes)) / len(hand)
    weight = (share / np.bincount(pack.labels[held], minlength=len(pack.classes)))[pack.labels[held]]
    return np.sort(rng.choice(held, OWN_TEST, p=weight / weight.sum()))


def _seen(pack: ImagePack, rows: I8, conditions: npt.NDArray[np.float64], rng: np.random.Generator) -> Samples:
    assert isinstance(SPEC.input, ImageInput)
    assert set(KINDS) <= set(CONDITIONS)
    seen = under(pack.take(rows), dict(zip(KINDS, conditions.tolist(), strict=True)), rng)
    prepare = Preprocess(SPEC.input)
    return Samples.of(np.stack([prepare.raw(image) for image in seen.images]), seen.labels.astype(np.int64))
