"""Deals labelled images out to the server and to cameras: by vehicle, never by image. Pure; owns no file.

Classes are dealt to cameras in Dirichlet proportions (Hsu, Qi & Brown 2019, "Measuring the effects of non-identical
data distribution"), and each camera's images are put under its own conditions. The shift is synthetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from devices.packs import UNLABELLED, ImagePack
from edge_protocol.errors import DataError
from roadcast.demo.fleet import CONDITIONS, Member
from roadcast.simulated.conditions import CONDITIONS as HOW

I8 = npt.NDArray[np.int64]
SKEW = 0.4
"""Dirichlet concentration of a class over the cameras: below 1, most of a class goes to one or two of them."""
LEAST_SHARE = 0.7
"""Every camera gets at least this part of an equal share."""
_DRAWS = 1000
_LEAST_IMAGES = 50


@dataclass(frozen=True)
class ImageSizes:
    """How many images the server keeps, and under how many conditions each held-out image is asked for."""

    anchors: int = 198
    validation: int = 300
    proxies: int = 1000
    test_conditions: int = 2


@dataclass(frozen=True)
class CameraShare:
    """One camera's images: labelled at installation, streamed unlabelled, and held out."""

    commissioning: ImagePack
    live: ImagePack
    test: ImagePack


@dataclass(frozen=True)
class ImageShares:
    """Everybody's images; no vehicle is in two of them.

    Attributes:
        anchors: the server's labelled images, taken by a well-kept camera in daylight.
        validation: further labelled ones, under all conditions.
        proxies: the server's unlabelled images, under all conditions.
        test: held-out images of all classes under all conditions.
        cameras: by device name.
    """

    anchors: ImagePack
    validation: ImagePack
    proxies: ImagePack
    test: ImagePack
    cameras: dict[str, CameraShare]


def share_images(
    pack: ImagePack, members: Sequence[Member], sizes: ImageSizes, rng: np.random.Generator
) -> ImageShares:
    """Deal the images out.

    Raises:
        DataError: too few images for everybody.
    """
    clear = {"clean": 1.0}
    train, held = np.flatnonzero(pack.split == 0), np.flatnonzero(pack.split == 1)
    needed = sizes.anchors + sizes.validation + sizes.proxies
    if len(held) < len(pack.classes) or len(train) < needed + _LEAST_IMAGES * len(members):
        raise DataError(
            f"the demo needs {needed + _LEAST_IMAGES * len(members)} training and some test images, "
            f"this pack has {len(train)} and {len(held)}"
        )
    everywhere = dict.fromkeys(CONDITIONS, 1.0)
    rest = train
    server: dict[str, ImagePack] = {}
    for name in ("anchors", "validation", "proxies"):
        mine = balanced(pack, rest, getattr(sizes, name), rng)
        rest = np.setdiff1d(rest, mine)
        server[name] = under(pack.take(mine), clear if name == "anchors" else everywhere, rng)
    server["proxies"] = replace(server["proxies"], labels=np.full(len(server["proxies"]), UNLABELLED, np.int64))
    shares = proportions(len(pack.classes), len(members), rng, skew=SKEW, least=LEAST_SHARE)
    if shares is None:
        shares = np.full((len(pack.classes), len(members)), 1 / len(members))
    cameras = {
        member.name: _camera(pack, mine, test, member, rng)
        for member, mine, test in zip(
            members, deal(pack, rest, shares, rng), deal(pack, held, shares, rng), strict=True
        )
    }
    test = under(pack.take(np.tile(held, sizes.test_conditions)), everywhere, rng)
    return ImageShares(**server, test=test, cameras=cameras)


def under(pack: ImagePack, conditions: Mapping[str, float], rng: np.random.Generator) -> ImagePack:
    """The pack with each image under a condition drawn by share; the order stays."""
    names = list(conditions)
    weights = np.array([conditions[name] for name in names])
    drawn = rng.choice(len(names), len(pack), p=weights / weights.sum())
    images = pack.images.copy()
    for at, name in enumerate(names):
        chosen = drawn == at
        if chosen.any():
            images[chosen] = HOW[name](pack.images[chosen], rng)
    return replace(pack, images=images)


def _camera(pack: ImagePack, mine: I8, test: I8, member: Member, rng: np.random.Generator) -> CameraShare:
    mine = rng.permutation(mine)
    streamed = len(mine) // 5
    return CameraShare(
        commissioning=under(pack.take(mine[streamed:]), member.conditions, rng),
        live=under(pack.take(mine[:streamed]), member.conditions, rng),
        test=under(pack.take(test), member.conditions, rng),
    )


def proportions(
    classes: int, cameras: int, rng: np.random.Generator, *, skew: float, least: float, draws: int = _DRAWS
) -> npt.NDArray[np.float64] | None:
    """Draw (classes, cameras) parts that sum to 1 over the cameras; None when no draw gives every camera enough.

    Args:
        classes: how many.
        cameras: how many.
        rng: source of chance.
        skew: Dirichlet concentration, above 0.
        least: part of an equal share that every camera must get.
        draws: after which it is given up.
    """
    for _ in range(draws):
        shares = rng.dirichlet(np.full(cameras, skew), classes)
        if shares.sum(axis=0).min() >= least * classes / cameras:
            return shares
    return None


def deal(pack: ImagePack, indices: I8, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> list[I8]:
    """Deal images to cameras class by class; the images of one vehicle stay together."""
    hands: list[list[I8]] = [[] for _ in range(shares.shape[1])]
    for label in range(len(pack.classes)):
        chosen = indices[pack.labels[indices] == label]
        filled = np.zeros(shares.shape[1])
        for group in _groups(pack, chosen, rng):
            to = int(np.argmax(shares[label] * len(chosen) - filled))
            filled[to] += len(group)
            hands[to].append(group)
    return [np.sort(np.concatenate(hand)) if hand else np.zeros(0, np.int64) for hand in hands]


def balanced(pack: ImagePack, indices: I8, count: int, rng: np.random.Generator) -> I8:
    """About `count` images, equally many of each class, whole vehicles only."""
    quota = count // len(pack.classes)
    taken: list[I8] = []
    for label in range(len(pack.classes)):
        have = 0
        for group in _groups(pack, indices[pack.labels[indices] == label], rng):
            if have + len(group) <= quota:
                taken.append(group)
                have += len(group)
    return np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.int64)


def _groups(pack: ImagePack, indices: I8, rng: np.random.Generator) -> Iterable[I8]:
    """The images of each vehicle, vehicles in random order."""
    for group in rng.permutation(np.unique(pack.groups[indices])):
        yield indices[pack.groups[indices] == group]
