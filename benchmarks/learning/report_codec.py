"""What a report costs on the wire, and what its levels cost the teacher: twelve cameras' real answers over rounds.

Every answer is coded as the product codes it, beside the device's own of the round before, and put into a message.
Against it: the same levels at three bytes a sample, through zlib and LZMA (as they are or as differences to the round
before, whichever is smaller), probabilities in fp32, and the weights that FedAvg would send.
"""

from __future__ import annotations

import argparse
import lzma
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness import Options, Outcome, Target, interleaved, ratios, run, spread
from benchmarks.learning.fleet import ARMS, SPEC, deal_world, run_arm
from benchmarks.learning.vehicle import ALPHA, DEVICES, vehicle_pack
from broker_server.distil_job import DistilSettings
from broker_server.strategies import Opinion, Strategy
from broker_server.strategies.base import SoftVotes
from edge_models.students import build_student
from edge_protocol import messages as m
from edge_protocol.arrays import pack, unpack
from edge_protocol.codec import encode
from edge_protocol.ids import DeviceId
from edge_protocol.vote_codec import CodedVotes, decode_votes, encode_votes
from edge_protocol.votes import ClassVotes

F4 = npt.NDArray[np.float32]
COURSE = 20
"""Rounds of which the first is told in full: the mean report is over so many, later ones as those measured."""
BYTES_A_SAMPLE, POINTS, SMALLER = 1.5, 0.5, 300
LAST = "whole message"


class Ledger:
    """Books every round: bytes of each way to tell it, and accuracies of teachers made of levels and of exact odds.

    Args:
        truth: (P,) classes of the proxies.
        samples: asked in all: the proxies, then the hidden anchors.
        rng: draws the order in which proxies travel; the product's sets are shuffled too.
    """

    def __init__(self, truth: npt.NDArray[np.generic], samples: int, rng: np.random.Generator) -> None:
        self.samples = samples
        self.sizes: list[dict[str, list[int]]] = []
        self.points: list[float] = []
        self.coded: list[tuple[CodedVotes, ClassVotes | None, bytes]] = []
        self._truth = truth
        self._order = rng.permutation(self.samples)
        self._last: dict[DeviceId, ClassVotes] = {}

    def __call__(self, strategy: Strategy, odds: Mapping[DeviceId, F4]) -> None:
        """Take a round in (`fleet.Watch`)."""
        self.sizes.append({})
        exact = type(strategy)(strategy.shared, strategy.settings, strategy.anchors)
        for device, ballot in zip(strategy.devices(), strategy.ballots(), strict=True):
            assert isinstance(ballot.votes, ClassVotes)
            self._book(device, self._shuffled(ballot.votes), odds[device].size)
            exact.add(device, SoftVotes(Opinion(odds[device])))
        self.points.append(100 * (self._accuracy(exact) - self._accuracy(strategy)))

    def of(self, way: str, *, first: bool) -> float:
        """Mean bytes of a report told this way, in the first round or in later ones."""
        return float(np.mean([each[way] for each in (self.sizes[:1] if first else self.sizes[1:])]))

    def _book(self, device: DeviceId, votes: ClassVotes, answers: int) -> None:
        number, base = len(self.sizes), self._last.get(device)
        coded = encode_votes(votes, base, number - 1)
        head = m.Header("roadside", device, bytes(16), bytes(8), number, 1.79e9, True)  # noqa: FBT003 - the wire's order
        body = m.CodedReport(SPEC.name, SPEC.label_space, number, number, bytes(8), 500, coded)
        plain = _levels(votes)
        moved = plain if base is None else ((np.frombuffer(plain, "u1") - np.frombuffer(_levels(base), "u1")).tobytes())
        sizes = {
            "fp32 probabilities": 4 * answers,
            "levels, 3 bytes": len(plain),
            "zlib": min(len(zlib.compress(each, 9)) for each in (plain, moved)),
            "LZMA": min(len(lzma.compress(each, lzma.FORMAT_ALONE, preset=9)) for each in (plain, moved)),
            "range coder": len(coded.data),
            LAST: len(encode(head, body)),
        }
        for way, size in sizes.items():
            self.sizes[-1].setdefault(way, []).append(size)
        self.coded.append((coded, base, zlib.compress(plain, 9)))
        self._last[device] = votes

    def _shuffled(self, votes: ClassVotes) -> ClassVotes:
        levels = (pack(unpack(each)[self._order]) for each in (votes.classes, votes.confidence, votes.density))
        return ClassVotes(*levels, votes.held)

    def _accuracy(self, strategy: Strategy) -> float:
        told = strategy.teacher().value[: len(self._truth)]
        return float((told.argmax(1) == self._truth).mean())


def measured(options: Options, *, rounds: int, steps: int) -> Outcome:
    """Bytes of a report and points lost by levels; --quick has 4 devices that know too little to judge points."""
    torch.set_num_threads(1)
    rounds, steps, devices = (2, 5, 4) if options.quick else (rounds, steps, DEVICES)
    world = deal_world(vehicle_pack(), devices=devices, alpha=ALPHA, seed=0)
    settings = DistilSettings(steps=steps, first_steps=40 if options.quick else 400, seed=0)
    ledger = Ledger(world.proxies.targets, len(world.proxies) + len(world.hidden), np.random.default_rng(0))
    say: Callable[[float], None] = lambda accuracy: print(f"  shared model {accuracy:.3f}", file=sys.stderr)  # noqa: E731
    run_arm(world, ARMS["feddistill"], rounds=rounds, settings=settings, say=say, watch=ledger)
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
        f"vehicle, {devices} devices, {rounds} rounds: {found[LAST]['first']:.0f} bytes at first, "
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


def main() -> int:
    """Take ``--rounds`` and ``--steps`` off the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rounds", type=int, default=COURSE)
    parser.add_argument("--steps", type=int, default=150)
    found, rest = parser.parse_known_args(sys.argv[1:])
    measure: Callable[[Options], Outcome] = partial(measured, rounds=found.rounds, steps=found.steps)
    measure.__doc__ = "What a report costs on the wire. --rounds N and --steps N make it shorter."
    return run(measure, rest)


if __name__ == "__main__":
    raise SystemExit(main())
