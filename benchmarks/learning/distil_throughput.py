"""Samples a second that the distillation learns: on one CPU thread, on all of them, on a CUDA device if there is one.

Steps are the product's (`distiller.train`): a batch under a teacher, half a batch of anchors, all
variations. Samples are simulated: what they show costs no time. Ways are timed in turn, so that a busy machine slows
all of them; ratios are to one thread, repeat by repeat.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Spread, Target, interleaved, ratios, run, spread
from broker_server.distil_job import DistilSettings
from broker_server.distiller import anchor_lesson, constant, inputs_of, shared_opinion, teacher_lesson, train
from broker_server.training import Lesson, Training
from edge_models.students import build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.task import TIERS, Tier

SPEC = load_task("vehicle")
PROXIES, ANCHORS = 1000, 120
GAIN = 1.0
"""What a CUDA device has to be worth, in all threads of the CPU beside it."""


@dataclass(frozen=True)
class Way:
    """A device, the threads that it may use, and whether the student is compiled and in bfloat16."""

    device: str
    threads: int
    fast: bool

    def __str__(self) -> str:
        where = self.device if self.device == "cuda" else f"cpu, {self.threads} thread{'s' * (self.threads > 1)}"
        return f"{where}{', compiled bfloat16' * self.fast}"


BASE = Way("cpu", 1, fast=False)


def ways(*, quick: bool) -> list[Way]:
    """Those that there are here; --quick compiles nothing on the CPU, which takes a minute a student."""
    cpus = os.cpu_count() or 1
    found = [BASE, *([Way("cpu", cpus, fast=False)] if cpus > 1 else [])]
    if not quick and shutil.which("g++"):
        found.append(Way("cpu", cpus, fast=True))
    if torch.cuda.is_available():
        found += [Way("cuda", cpus, fast=False), Way("cuda", cpus, fast=True)]
    return found


def measured(options: Options) -> Outcome:
    """How fast the distillation learns, by device; --quick takes the smallest student only, and judges nothing."""
    tiers, steps, repeats = (TIERS[:1], 2, 3) if options.quick else (TIERS, 10, 7)
    plan = msgspec.structs.replace(DistilSettings(), checkpoint_steps=1000)
    here = ways(quick=options.quick)
    rates: dict[Tier, dict[Way, Spread]] = {}
    gains: dict[Tier, dict[Way, Spread]] = {}
    for tier in tiers:
        lessons = lessons_of(tier, plan)
        cases = {way: _case(way, tier, lessons, plan, steps) for way in here}
        seconds = interleaved({str(way): case for way, case in cases.items()}, repeats=repeats, warm_up=1)
        learnt = steps * sum(lesson.batch for lesson in lessons)
        rates[tier] = {way: spread([learnt / taken for taken in seconds[str(way)]]) for way in here}
        gains[tier] = {way: ratios(seconds[str(BASE)], seconds[str(way)]) for way in here}
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return outcome_of(here, rates, gains, card=card, judge=not options.quick)


def lessons_of(tier: Tier, plan: DistilSettings) -> list[Lesson]:
    """What a round teaches: the opinion of a student of the tier on proxies, and labelled anchors."""
    simulate, rng = plugin_of(SPEC).simulate, np.random.default_rng(0)
    x = inputs_of(simulate(SPEC, rng, PROXIES), SPEC)
    opinion = shared_opinion([build_student(SPEC, tier)], x, SPEC)
    return [
        teacher_lesson(x, opinion, temperature=plan.temperature, batch=plan.batch),
        anchor_lesson(simulate(SPEC, rng, ANCHORS), SPEC, weight=plan.anchor_weight, batch=plan.batch // 2),
    ]


def _case(way: Way, tier: Tier, lessons: Sequence[Lesson], plan: DistilSettings, steps: int) -> Callable[[], None]:
    training = Training(build_student(SPEC, tier), SPEC, torch.device(way.device), fast=way.fast)
    here = [lesson.to(training.device) for lesson in lessons]
    learn = partial(train, training, here, plan, steps, constant(plan.learning_rate), progress=lambda *_: None)

    def case() -> None:
        torch.set_num_threads(way.threads)
        learn()

    return case


def outcome_of(
    here: Sequence[Way],
    rates: Mapping[Tier, Mapping[Way, Spread]],
    gains: Mapping[Tier, Mapping[Way, Spread]],
    *,
    card: str,
    judge: bool,
) -> Outcome:
    """The table and what it comes to; a CUDA device is held against the best of the CPU's ways.

    Args:
        here: the ways, `BASE` first.
        rates: samples a second.
        gains: the same in those of `BASE`.
        card: name of the CUDA device; "" without one.
        judge: whether there are targets.
    """
    rows: list[list[object]] = [["student", "where", "samples a second", f"in those of {BASE}"]]
    rows += [[tier, str(way), str(rates[tier][way]), str(gains[tier][way])] for tier in rates for way in here]
    best = {
        tier: max((way for way in here if way.device == "cpu"), key=lambda w: rates[tier][w].median) for tier in rates
    }
    told, targets = "no CUDA device here", list[Target]()
    if card:
        cuda = next(way for way in here if way.device == "cuda" and way.fast)
        over = {tier: rate[cuda].median / rate[best[tier]].median for tier, rate in rates.items()}
        told = f"{card}: {_range(list(over.values()))} times the best of the CPU"
        targets = [
            Target(f"{cuda} in the best of the CPU, {tier}", gain, GAIN, at_most=False) for tier, gain in over.items()
        ]
    figures = {
        "samples_a_second": {tier: {str(way): rate for way, rate in each.items()} for tier, each in rates.items()},
        "gain": {tier: {str(way): gain for way, gain in each.items()} for tier, each in gains.items()},
        "card": card,
    }
    threads = _range([gain[here[min(1, len(here) - 1)]].median for gain in gains.values()])
    first = next(iter(rates))
    headline = f"distillation: {first} {rates[first][BASE].median:.0f} samples a second on one thread"
    headline = f"{headline}; {here[min(1, len(here) - 1)]}: {threads} times that; {told}"
    return Outcome(headline, figures, targets if judge else (), rows)


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if len(values) == 1 else f"{low:.2f} to {high:.2f}"


if __name__ == "__main__":
    raise SystemExit(run(measured))
