"""What dishonest devices cost: `feddistill` and the plain mean under every attack, at 20 and 40 % of the fleet.

Accuracy of the shared model after the same rounds, steps and seeds: with no attacker, with every attack (`attackers`),
with anchors alone, without any device, and with the plain mean of honest ones.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run
from benchmarks.learning import attackers, vehicle
from benchmarks.learning.answers import Setting
from benchmarks.learning.attackers import ATTACKS
from benchmarks.learning.fleet import World, deal_world
from benchmarks.learning.kept import CACHE, code_of, kept, mark_of
from benchmarks.learning.vehicle_arms import ARMS, Found

SHARES = (0.2, 0.4)
LOST = 2.0
"""Points that attackers may cost."""
SETTING = Setting(rounds=3, steps=50)
QUICK = Setting(devices=4, rounds=1, steps=3, first_steps=10)
CONTROLS = ("anchors", "self", "mean", "feddistill")


def measured(options: Options, *, seeds: int, shares: Sequence[float], cache: Path, ours_only: bool) -> Outcome:
    """What dishonest devices cost; --quick runs one attack on four devices for one round, and judges nothing."""
    torch.set_num_threads(1)
    setting, attacks = SETTING, list(ATTACKS)
    if options.quick:
        setting, attacks, shares, seeds = QUICK, ["least likely"], [SHARES[-1]], 1
    accuracy: dict[str, list[float]] = {}
    for seed in range(seeds):
        for name in CONTROLS:
            accuracy.setdefault(name, []).append(_final(name, setting, seed, cache))
        for attack in attacks:
            for share in shares:
                for rule in ("feddistill", "mean") if share == shares[-1] and not ours_only else ("feddistill",):
                    attacked = replace(setting, attack=attack, liars=share)
                    name = f"{rule}, {share:.0%} {attack}"
                    accuracy.setdefault(name, []).append(_final(rule, attacked, seed, cache))
                    sys.stderr.write(f"seed {seed} {name}: {accuracy[name][-1]:.3f}\n")
    lost = {name: 100 * (np.mean(accuracy[name.split(",")[0]]) - np.mean(found)) for name, found in accuracy.items()}
    rows: list[list[object]] = [["method, attackers", "shared model, %", "points lost", "each seed, %"]]
    rows += [
        [name, f"{100 * np.mean(found):.1f}", f"{lost[name]:.1f}", ", ".join(f"{100 * one:.1f}" for one in found)]
        for name, found in accuracy.items()
    ]
    ours = [name for name in accuracy if name.startswith("feddistill,")]
    worst = max(ours, key=lambda name: lost[name])
    figures = {"accuracy": accuracy, "lost": lost}
    told = f"vehicle, {setting.rounds} rounds of {setting.steps} steps, {seeds} seeds"
    if options.quick:
        return Outcome(f"{told}: {len(accuracy)} runs; too few to judge", figures, rows=rows)
    targets = [Target(f"points lost to {worst}", float(lost[worst]), LOST)]
    for control in CONTROLS[:-1]:
        above = 100 * min(np.mean(accuracy[name]) - np.mean(accuracy[control]) for name in ours)
        targets.append(Target(f"least points above {control} under attack", float(above), 0.0, at_most=False))
    return Outcome(f"{told}: the worst attack ({worst}) costs {lost[worst]:.1f} points", figures, targets, rows)


def _final(rule: str, setting: Setting, seed: int, cache: Path) -> float:
    mark = vehicle.file_of(rule, setting, seed, vehicle.load()[1])

    def train() -> Found:
        return ARMS[rule](_world(setting.devices, setting.alpha, seed), setting, seed)

    name = f"robustness-{mark_of(mark, code_of([attackers]))}" if setting.attack else mark
    curve: list[float] = kept(cache, name, train)["made"]["curve"]
    return curve[-1]


def _shares(text: str) -> list[float]:
    shares = [float(part) for part in text.split(",")]
    if not all(0 < share < 1 for share in shares):
        raise ArgumentTypeError("shares lie between 0 and 1")
    return sorted(shares)


@lru_cache(maxsize=1)
def _world(devices: int, alpha: float, seed: int) -> World:
    return deal_world(vehicle.load()[0], devices=devices, alpha=alpha, seed=seed)


if __name__ == "__main__":
    raise SystemExit(
        run(
            measured,
            seeds=Own(3, "how many"),
            shares=Own(SHARES, "of the fleet that lie, such as 0.2,0.4", _shares),
            ours_only=Own(default=False, help="without the plain mean under attack"),
            cache=CACHE,
        )
    )
