"""What each ingredient of `feddistill` is worth: the whole rule, and the rule without one of them at a time.

Twelve cameras at Dirichlet 0.1 in mixed conditions, 30 % of them away in every round, so that old reports count.
Printed are points of the shared model lost without an ingredient, over the same seeds, rounds and images; `self` is the
same distillation without any device. What personal heads are worth is in `vehicle`.
``--attack`` asks the same in the setting of `robustness`, with two of five devices dishonest.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, count, run, spread
from benchmarks.learning import attackers, robustness, vehicle
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import World, deal_world
from benchmarks.learning.kept import CACHE, code_of, kept, mark_of
from benchmarks.learning.series_report import sign_flips
from benchmarks.learning.vehicle_arms import Found, taught
from broker_server.distil_job import DistilSettings
from broker_server.strategies import STRATEGIES
from broker_server.strategies.base import HiddenAnchors, Opinion
from broker_server.strategies.feddistill import FedDistill
from broker_server.strategies.ratios import F4, I8, LEAST_MEAN, Block, Ratios

SETTING = Setting(rounds=5, offline=0.3)
QUICK = Setting(devices=4, rounds=1, steps=3, first_steps=10, offline=0.3)
WHOLE, CONTROL = "feddistill", "self"


class NoDensity(FedDistill):
    """Devices say what a sample is, and not how much of it looks like their own."""

    def decoded(self) -> Sequence[Ratios]:
        """Each device's probabilities of its classes, over their means."""
        return [level(block) for block in super().decoded() if isinstance(block, Block)]


class NoTrust(FedDistill):
    """No hidden anchors: all that hold a class count alike in it."""

    def __init__(self, shared: Opinion, settings: DistilSettings, anchors: HiddenAnchors | None = None) -> None:
        del anchors
        super().__init__(shared, settings)


class NoNovelty(FedDistill):
    """Devices that repeat the shared model count like others."""

    def decoded(self) -> Sequence[Ratios]:
        """What the devices said, and that none of them repeats anything."""
        return [Unlike(**vars(block)) for block in super().decoded()]


class Unlike(Block):
    """A block whose devices never name what the shared model names."""

    def agreement(self, classes: I8, weight: F4) -> F4:
        """(n,) float32, all 0."""
        del classes, weight
        return np.zeros(len(self.named), np.float32)


RULES: Mapping[str, type[FedDistill]] = {"no density": NoDensity, "no trust": NoTrust, "no novelty": NoNovelty}
WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "no age": {"half_life": 1e9},
    "no cap": {"device_cap": 1.0},
    "no shared voter": {"shared_share": 0.0},
    "no anchors' loss": {"anchor_weight": 0.0},
    "no EMA": {"ema": 0.0},
    "no variations": {"augment": False},
}
"""What is left out, and the settings that leave it out; the rules above leave theirs out themselves."""
NAMES = (WHOLE, CONTROL, *RULES, *WITHOUT)
QUICK_NAMES = (WHOLE, "no density", "no EMA")


def measured(
    options: Options, *, rounds: int | None, seeds: int, attack: str | None, rules: Sequence[str], cache: Path
) -> Outcome:
    """What each ingredient of `feddistill` is worth; --quick shows that it runs. There is no target."""
    torch.set_num_threads(1)
    setting = replace(robustness.SETTING, attack=attack, liars=robustness.SHARES[-1]) if attack else SETTING
    setting, names = replace(setting, rounds=rounds or setting.rounds), rules
    if options.quick:
        setting, seeds, names = QUICK, 1, QUICK_NAMES
    runs: dict[str, list[Found]] = {}
    for seed in range(seeds):
        for name in names:
            runs.setdefault(name, []).append(_found(name, setting, seed, cache))
            sys.stderr.write(f"seed {seed} {name}: {runs[name][-1]['curve'][-1]:.3f}\n")
    final = {name: [100 * found["curve"][-1] for found in each] for name, each in runs.items()}
    lost = {name: spread(np.subtract(final[WHOLE], final[name]).round(1).tolist()) for name in final if name != WHOLE}
    right = {name: np.mean([found["right"] for found in each], axis=0) for name, each in runs.items()}
    chance = {name: sign_flips(right[WHOLE] - right[name]) for name in lost}
    rows: list[list[object]] = [["rule", "shared model, %", "points lost", "p"]]
    rows.append([WHOLE, str(spread([round(value, 1) for value in final[WHOLE]])), "", ""])
    rows += [
        [name, str(spread([round(value, 1) for value in final[name]])), str(lost[name]), f"{chance[name]:.2g}"]
        for name in lost
    ]
    figures = {"accuracy": final, "lost": lost, "p": chance, "setting": asdict(setting)}
    lies = f", {setting.liars:.0%} {setting.attack}" if setting.attack else ""
    told = f"vehicle, {setting.offline:.0%} away{lies}, {setting.rounds} rounds, {seeds} seeds"
    dearest = max((name for name in lost if name != CONTROL), key=lambda name: lost[name].median)
    return Outcome(f"{told}: the dearest to leave out ({dearest}) costs {lost[dearest]} points", figures, rows=rows)


def level(block: Block) -> Block:
    """A block whose devices' odds add up to one on every sample that they answer."""
    total = block.rest * block.held.sum(1, keepdims=True) + block.more
    rest, more = (np.divide(odds, total, out=np.zeros_like(odds), where=total > 0) for odds in (block.rest, block.more))
    means = block.held * rest.mean(1, keepdims=True)
    for c in range(means.shape[1]):
        means[:, c] += (more * (block.named == c)).mean(1)
    return replace(block, rest=rest, more=more, means=np.maximum(means, LEAST_MEAN))


def _found(name: str, setting: Setting, seed: int, cache: Path) -> Found:
    mark = vehicle.file_of("", setting, seed, vehicle.load()[1])
    rule = f"{WHOLE}, {name}" if name in RULES else name if name in STRATEGIES else WHOLE

    def train() -> Found:
        return taught(rule, _world(setting.devices, setting.alpha, seed), setting, seed, **WITHOUT.get(name, {}))

    if name in RULES:
        STRATEGIES[rule] = RULES[name]
    own = code_of(([sys.modules[__name__]] if name in RULES else []) + ([attackers] if setting.attack else []))
    found: Found = kept(cache, f"ablation-{mark_of(mark, name, WITHOUT.get(name), own)}", train)["made"]
    return found


@lru_cache(maxsize=1)
def _world(devices: int, alpha: float, seed: int) -> World:
    return deal_world(vehicle.load()[0], devices=devices, alpha=alpha, seed=seed)


def _rules(text: str) -> list[str]:
    names = [WHOLE, *(name for name in text.split(",") if name != WHOLE)]
    if unknown := set(names) - set(NAMES):
        raise ArgumentTypeError(f"no rule {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if not set(names) - {WHOLE, CONTROL}:
        raise ArgumentTypeError("nothing is left out")
    return names


def _attack(text: str) -> str:
    if text not in attackers.ATTACKS:
        raise ArgumentTypeError(f"no attack {text!r}; there are {', '.join(attackers.ATTACKS)}")
    return text


if __name__ == "__main__":
    raise SystemExit(
        run(
            measured,
            rounds=Own(None, f"how many ({SETTING.rounds}; under attack {robustness.SETTING.rounds})", count),
            seeds=Own(3, "how many"),
            attack=Own(None, "ask in robustness's setting, under this attack", _attack),
            rules=Own(NAMES, f"these instead of all: {','.join(NAMES)}", _rules),
            cache=CACHE,
        )
    )
