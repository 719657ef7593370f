"""Soft labels as they travel: a device's answers on the proxies, in coarse levels. Owns bounds and levels, no weight.

A device can only compare: how much likelier is this proxy among my own samples of a class than among the proxies? That
density ratio is estimated by telling both apart (Sugiyama et al. 2012), and a few levels of it are enough: finer ones
cost bytes and teach no more (``benchmarks/learning/report_codec.py``).
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from edge_protocol.arrays import Array, pack, unpack
from edge_protocol.errors import LocalProtocolError

F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
MAX_SAMPLES = 20_000
_EVERY_BYTE = bytes(range(256))

CONFIDENCE = np.array([0.5, 0.7, 0.88, 0.98], np.float32)
"""Probability that a confidence level stands for, of the likeliest class among those that the device holds."""
_CONFIDENCE_EDGES = np.array([0.6, 0.8, 0.95], np.float32)
ODDS = np.exp(np.array([-3.0, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 4.5], np.float32))
"""Odds that a density level stands for: own samples against proxies. Steps of one nat; level 0 says nothing."""
_ODDS_EDGES = np.exp(np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0], np.float32))
STAY = 0.25
"""How far (nats) beyond the edge of its last level an answer must be before it is told anew: a quarter of a step."""
MEAN_STEP, MOST_MEAN = 1 / 32, 2047
"""A forecast's mean is told in steps of this part of the sensor's spread, up to so many: 64 spreads either way."""
SPREAD_STEP, MOST_SPREAD = 1 / 8, 40
"""A forecast's spread is told in steps of an eighth of a nat, from e^-5 to e^5 of the sensor's."""
_SPREADS = np.exp(np.arange(-MOST_SPREAD, MOST_SPREAD + 1) * SPREAD_STEP).astype(np.float16)


class ClassVotes(msgspec.Struct, frozen=True, array_like=True, tag="classes"):
    """Soft labels of a classifier, three small numbers a sample.

    Attributes:
        classes: (N,) uint8, likeliest of the classes held; 0 where the density level is 0.
        confidence: (N,) uint8 below 4, level of its probability among the classes held; 0 where the density level is 0.
        density: (N,) uint8 below 8, level of the odds that the sample is one of the device's own and not a proxy.
        held: (C,) uint8, 1 for classes the device has enough examples of.
    """

    classes: Array
    confidence: Array
    density: Array
    held: Array

    def __post_init__(self) -> None:
        _check_votes(self.classes, "u1", 1)
        _check_alike(self.confidence, "confidence", "u1", self.classes.shape)
        _check_alike(self.density, "density", "u1", self.classes.shape)
        _check_below(self.confidence, "confidence", len(CONFIDENCE))
        _check_below(self.density, "density", len(ODDS))
        held = self.held
        if held.dtype != "u1" or len(held.shape) != 1 or not held.data:
            raise LocalProtocolError("wrong-shape", f"held must be u1[classes], not {held.dtype}{list(held.shape)}")
        if held.data.translate(None, b"\0\1"):
            raise LocalProtocolError("wrong-shape", "held must be 1 for classes with examples and 0 for the others")
        if beyond := self.classes.data.translate(None, _EVERY_BYTE[: len(held.data)]):
            raise LocalProtocolError("wrong-shape", f"a vote names class {max(beyond)} of {len(held.data)}")

    @property
    def samples(self) -> int:
        """N, the number of proxy samples answered."""
        return self.classes.shape[0]


class ForecastVotes(msgspec.Struct, frozen=True, array_like=True, tag="forecasts"):
    """Soft answers of a forecaster, in units of the proxy sample's own spread.

    Attributes:
        mean: (N, H) float16, change against the window's last reading, within ±63.97.
        spread: (N, H) float16, standard deviation, from e^-5 to e^5.
    """

    mean: Array
    spread: Array

    def __post_init__(self) -> None:
        _check_votes(self.mean, "f2", 2)
        _check_alike(self.spread, "spread", "f2", self.mean.shape)
        mean, spread = (unpack(array).astype(np.float32) for array in (self.mean, self.spread))
        if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
            raise LocalProtocolError("not-finite", "a forecast holds NaN or infinity")
        if np.abs(mean).max(initial=0) > MOST_MEAN * MEAN_STEP:
            raise LocalProtocolError("wrong-shape", f"a forecast's mean is beyond ±{MOST_MEAN * MEAN_STEP:g} spreads")
        if not ((spread >= _SPREADS[0]) & (spread <= _SPREADS[-1])).all():
            raise LocalProtocolError(
                "wrong-shape", f"a forecast's spread is not in {_SPREADS[0]:.4f} to {_SPREADS[-1]:g}"
            )

    @property
    def samples(self) -> int:
        """N, the number of proxy samples answered."""
        return self.mean.shape[0]


Votes = ClassVotes | ForecastVotes


def class_votes(odds: F4, held: npt.NDArray[np.uint8], before: ClassVotes | None = None) -> ClassVotes:
    """Round a classifier's answers to levels.

    Args:
        odds: (N, C) float32 ≥ 0, odds of "an own sample of class c" against "a proxy"; 0 for classes not held.
        held: (C,) 1 for classes that the device may speak of.
        before: what the device said last about the same samples. A level or class stays as it was until the odds are
            `STAY` beyond its edge, so that noise costs no bytes (a quantiser with a dead zone; `vote_codec`).

    Raises:
        LocalProtocolError: ``not-finite``.
    """
    _check_finite(odds)
    odds = odds * held
    total, best, at = odds.sum(1), odds.argmax(1), np.arange(len(odds))
    named, sure, level = (
        np.zeros((3, len(odds)), np.int64)
        if before is None
        else (_levels(array) for array in (before.classes, before.confidence, before.density))
    )
    slack = np.float32(1 if before is None else np.exp(STAY))
    stays = (level > 0) & (odds[at, named] * slack >= odds[at, best])
    best = np.where(stays, named, best)
    mine = odds[at, best]
    rest = np.maximum(total - mine, 1e-9)
    slacks = np.where(stays, slack, 1)
    density = level.clip(np.digitize(total / slack, _ODDS_EDGES), np.digitize(total * slack, _ODDS_EDGES))
    low, high = (np.digitize(part / (part + rest), _CONFIDENCE_EDGES) for part in (mine / slacks, mine * slacks))
    speaks = density > 0
    classes, confidence = best * speaks, sure.clip(low, high) * speaks
    return ClassVotes(*(pack(levels.astype(np.uint8)) for levels in (classes, confidence, density, held)))


def class_odds(votes: ClassVotes) -> F4:
    """Undo `class_votes` as far as levels allow: (N, C) float32 odds, 0 for classes not held."""
    held = unpack(votes.held).astype(np.float32)
    classes, confidence, density = (_levels(array) for array in (votes.classes, votes.confidence, votes.density))
    total, speaks = ODDS[density], density > 0
    others = max(held.sum() - 1, 0)
    best = CONFIDENCE[confidence] if others else np.ones(votes.samples, np.float32)
    rest = np.where(speaks, (1 - best) / max(others, 1), 1 / (others + 1))
    odds = (total * rest)[:, None] * held
    at = np.flatnonzero(speaks)
    odds[at, classes[at]] = (total * best)[at]
    return np.asarray(odds, np.float32)


def forecast_votes(mean: F4, spread: F4) -> ForecastVotes:
    """Round a forecaster's answers to levels: of the mean in 1/32, of the spread's logarithm in 1/8.

    Args:
        mean: (N, H) float32, in units of the sensor's spread.
        spread: (N, H) float32 > 0, likewise.

    Raises:
        LocalProtocolError: ``not-finite``.
    """
    for values in (mean, spread):
        _check_finite(values)
    levels = np.rint(mean / MEAN_STEP).clip(-MOST_MEAN, MOST_MEAN).astype(np.int64)
    return votes_of_levels(levels, _spread_levels(spread))


def votes_of_levels(mean: I8, spread: I8) -> ForecastVotes:
    """Forecast votes from levels (N, H): mean within ±`MOST_MEAN`, spread within ±`MOST_SPREAD`."""
    return ForecastVotes(pack((mean * MEAN_STEP).astype(np.float16)), pack(_SPREADS[spread + MOST_SPREAD]))


def levels_of_votes(votes: ForecastVotes) -> tuple[I8, I8]:
    """Nearest levels of mean and spread, each (N, H); what `forecast_votes` made comes back from them unchanged."""
    mean, spread = (unpack(array).astype(np.float32) for array in (votes.mean, votes.spread))
    return np.rint(mean / MEAN_STEP).clip(-MOST_MEAN, MOST_MEAN).astype(np.int64), _spread_levels(spread)


def _spread_levels(spread: F4) -> I8:
    levels = np.rint(np.log(np.maximum(spread, 1e-30)) / SPREAD_STEP)
    return np.asarray(levels.clip(-MOST_SPREAD, MOST_SPREAD).astype(np.int64))


def forecast_values(votes: ForecastVotes) -> tuple[F4, F4]:
    """Undo `forecast_votes`: mean (N, H) and spread (N, H) > 0, float32."""
    return unpack(votes.mean).astype(np.float32), unpack(votes.spread).astype(np.float32)


def _levels(array: Array) -> I8:
    return unpack(array).astype(np.int64)


def _check_finite(values: F4) -> None:
    if not np.isfinite(values).all():
        raise LocalProtocolError("not-finite", "an answer on the proxies is NaN or infinite")


def _check_votes(array: Array, dtype: str, dimensions: int) -> None:
    if array.dtype != dtype or len(array.shape) != dimensions:
        raise LocalProtocolError(
            "wrong-shape", f"votes must be {dtype} of {dimensions} dimensions, not {array.dtype}{list(array.shape)}"
        )
    if array.shape[0] > MAX_SAMPLES:
        raise LocalProtocolError("oversized", f"{array.shape[0]} votes exceed {MAX_SAMPLES}")


def _check_alike(array: Array, what: str, dtype: str, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise LocalProtocolError(
            "wrong-shape", f"{what} must be {dtype}{list(shape)} like the votes, not {array.dtype}{list(array.shape)}"
        )


def _check_below(array: Array, what: str, levels: int) -> None:
    if beyond := array.data.translate(None, _EVERY_BYTE[:levels]):
        raise LocalProtocolError("wrong-shape", f"{what} level {max(beyond)} of {levels}")
