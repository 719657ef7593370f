"""What a report costs on the wire, and what its levels cost the teacher: twelve cameras' real answers over rounds.

Every answer is coded as the product codes it, beside the device's own of the round before, and put into a message.
Against it: the same levels at three bytes a sample, through zlib and LZMA (as they are or as differences to the round
before, whichever is smaller), probabilities in fp32, and the weights that FedAvg would send.
"""

from __future__ import annotations

import lzma
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness import Options, Outcome, Own, Target, interleaved, ratios, run, spread
from benchmarks.learning.answers import Setting, shuffled
from benchmarks.learning.fleet import F4, I8, SPEC, deal_world, message_of
from benchmarks.learning.vehicle import load
from benchmarks.learning.vehicle_arms import taught
from broker_server.strategies import Strategy
from broker_server.strategies.feddistill import FedDistill
from broker_server.strategies.ratios import Ratios
from edge_models.students import build_student
from edge_protocol.ids import DeviceId
from edge_protocol.vote_codec import CodedVotes, decode_votes, encode_votes
from edge_protocol.votes import ClassVotes

COURSE = 20
"""Rounds of which the first is told in full: the mean report is over so many, later ones as those measured."""
BYTES_A_SAMPLE, POINTS, SMALLER = 1.5, 0.5, 300
LAST = "whole message"


@dataclass(frozen=True, eq=False)
class ExactRatios:
    """`Ratios` of one device, out of `odds` (N, C) float32 that were never rounded."""

    at: int
    odds: F4

    @property
    def devices(self) -> slice:
        """Its place."""
        return slice(self.at, self.at + 1)

    def picked(self, rows: I8 | slice, classes: I8) -> F4:
        """Ratios (1, R), of a class on a sample each."""
        return np.take_along_axis(self._values[rows], classes[:, None], 1).T

    def weighted(self, weights: F4) -> F4:
        """Weight times ratio: (N, C)."""
        return self._values * weights

    def agreement(self, classes: I8, weight: F4) -> F4:
        """Share of all odds that are on samples where this class has the largest: (1,)."""
        told = self.odds.sum(1) * weight
        return np.array([told[self.odds.argmax(1) == classes].sum() / max(told.sum(), 1e-9)], np.float32)

    @property
    def _values(self) -> F4:
        return self.odds / np.maximum(self.odds.mean(0), 1e-6)


class Exact(FedDistill):
    """The rule as it would be if devices told their odds in full; `odds` of every device, in their order."""

    odds: Sequence[F4] = ()

    def decoded(self) -> Sequence[Ratios]:
        """The odds, each class divided by its mean."""
        return [ExactRatios(at, each) for at, each in enumerate(self.odds)]


class Ledger:
    """Books every round: bytes of each way to tell it, and accuracies of teachers made of levels and of exact odds.

    Args:
        truth: labels of the proxies, the first of the samples asked.
        asked: how many samples are, hidden anchors included.
    """

    def __init__(self, truth: npt.NDArray[np.generic], asked: int) -> None:
        self.samples = asked
        self.sizes: list[dict[str, list[int]]] = []
        self.points: list[float] = []
        self.coded: list[tuple[CodedVotes, ClassVotes | None, bytes]] = []
        self._truth = truth
        self._last: dict[DeviceId, ClassVotes] = {}

    def __call__(self, number: int, strategy: Strategy, odds: Mapping[DeviceId, F4]) -> None:
        """Take a round in (`vehicle_arms.Watch`)."""
        self.sizes.append({})
        exact = Exact(strategy.shared, strategy.settings, strategy.anchors)
        exact.odds = [odds[device] for device in strategy.devices()]
        for device, ballot in zip(strategy.devices(), strategy.ballots(), strict=True):
            assert isinstance(ballot.votes, ClassVotes)
            self._book(device, number, shuffled(ballot.votes), odds[device].size)
            exact.add(device, ballot.votes)
        self.points.append(100 * (self._accuracy(exact) - self._accuracy(strategy)))

    def of(self, way: str, *, first: bool) -> float:
        """Mean bytes of a report told this way, in the first round or in later ones."""
        return float(np.mean([each[way] for each in (self.sizes[:1] if first else self.sizes[1:])]))

    def _book(self, device: DeviceId, number: int, votes: ClassVotes, answers: int) -> None:
        base = self._last.get(device)
        coded = encode_votes(votes, base, number - 1)
        plain = _levels(votes)
        moved = plain if base is None else ((np.frombuffer(plain, "u1") - np.frombuffer(_levels(base), "u1")).tobytes())
        sizes = {
            "fp32 probabilities": 4 * answers,
            "levels, 3 bytes": len(plain),
            "zlib": min(len(zlib.compress(each, 9)) for each in (plain, moved)),
            "LZMA": min(len(lzma.compress(each, lzma.FORMAT_ALONE, preset=9)) for each in (plain, moved)),
            "range coder": len(coded.data),
            LAST: len(message_of(device, number, votes, base, number - 1)),
        }
        for way, size in sizes.items():
            self.sizes[-1].setdefault(way, []).append(size)
        self.coded.append((coded, base, zlib.compress(plain, 9)))
        self._last[device] = votes

    def _accuracy(self, strategy: Strategy) -> float:
        told = strategy.teacher().value[: len(self._truth)]
        return float((told.argmax(1) == self._truth).mean())


def measured(options: Options, *, rounds: int, steps: int) -> Outcome:
    """Bytes of a report and points lost by levels; --quick has 4 devices that know too little to judge points."""
    torch.set_num_threads(1)
    setting = Setting(rounds=rounds, steps=steps)
    if options.quick:
        setting = Setting(devices=4, rounds=2, steps=5, first_steps=40)
    world = deal_world(load()[0], devices=setting.devices, alpha=setting.alpha, seed=0)
    ledger = Ledger(world.proxies.targets, len(world.proxies) + len(world.hidden))
    taught("feddistill", world, setting, 0, watch=ledger)
    ways = list(ledger.sizes[0])
    found = {way: {"first": ledger.of(way, first=True), "later": ledger.of(way, first=False)} for way in ways}
    mean = (found[LAST]["first"] + (COURSE - 1) * found[LAST]["later"]) / COURSE
    a_sample, lost = found[LAST]["later"] / ledger.samples, float(np.mean(ledger.points))
    weights = 4 * sum(each.numel() for each in build_student(SPEC, "nano", 0).state_dict().values())
    slower, seconds = _throughput(ledger)
    rows: list[list[object]] = [["way", "first report, bytes", "later", "first, bytes a sample", "later"]]
    for way, size in found.items():
        each = [size["first"], size["later"]]
        rows.append([way, *(f"{b:.0f}" for b in each), *(f"{b / ledger.samples:.3f}" for b in each)])
    rows.append([f"mean report of {COURSE} rounds", f"{mean:.0f}", "", f"{mean / ledger.samples:.3f}", ""])
    rows.append(["nano student's weights, fp32", weights, weights, "", ""])
    figures = {"bytes": found, "rounds": ledger.sizes, "points_lost": ledger.points, "mean_report": mean}
    figures |= {"nano_fp32_bytes": weights, "decode_to_zlib": slower, "decode_s": seconds, "samples": ledger.samples}
    headline = (
        f"vehicle, {setting.devices} devices, {setting.rounds} rounds: {found[LAST]['first']:.0f} bytes at first, "
        f"{found[LAST]['later']:.0f} later ({a_sample:.2f} a sample); mean {mean:.0f}, "
        f"{weights / mean:.0f} times less than fp32 weights, {weights / 2 / mean:.0f} than fp16; levels cost "
        f"the teacher {lost:.2f} points; decoding takes {slower} times what zlib takes"
    )
    targets = [
        Target("bytes a sample after the first round", a_sample, BYTES_A_SAMPLE),
        Target(f"mean report, in 1/{SMALLER} of nano's fp32 weights", mean / (weights / SMALLER), 1),
    ]
    if not options.quick:
        targets.append(Target("points of the teacher lost by levels", lost, POINTS))
    return Outcome(headline, figures, targets, rows)


def _throughput(ledger: Ledger) -> tuple[object, object]:
    """Decoding by our coder in times of zlib's, and our CPU seconds for a report."""
    coded, base, packed = ledger.coded[-1]
    cases = {"ours": lambda: decode_votes(coded, SPEC.kind, base), "zlib": lambda: zlib.decompress(packed)}
    seconds = interleaved(cases, repeats=20, clock=time.process_time)
    return ratios(seconds["ours"], [max(each, 1e-7) for each in seconds["zlib"]]), spread(seconds["ours"])


def _levels(votes: ClassVotes) -> bytes:
    return votes.classes.data + votes.confidence.data + votes.density.data


if __name__ == "__main__":
    raise SystemExit(run(measured, rounds=Own(COURSE, "how many"), steps=Own(150, "of a student in a round")))
