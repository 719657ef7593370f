"""What dishonest forecasters cost: the teacher's error on proxies under every attack, 40 % of eight devices lying.

The fleet is that of `shared_trunks`, without trunks (METR-LA, one week): devices train and report through the product,
round after round with everybody honest. Each round's reports are then fused again with lies in the place of some, by
`feddistill` and by the plain mean, and without the spread in everybody's: what it is worth. Judged is the teacher,
which is all that a report can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run
from benchmarks.learning.forecast_codec import teacher_error
from benchmarks.learning.shared_trunks import QUICK, SPEC, Budget, Fleet, sensors
from broker_server.bench import Bench, open_bench
from broker_server.distil_job import DistilSettings
from broker_server.distiller import inputs_of
from broker_server.hearing import hear
from broker_server.strategies import Strategy, make_strategy
from broker_server.strategies.base import F4, Opinion
from broker_server.strategies.feddistill import SHARPEST
from edge_protocol.ids import DeviceId
from edge_protocol.messages import ForecastVotes
from edge_protocol.votes import MEAN_STEP, MOST_MEAN, forecast_values, forecast_votes

SHARE, DRAWS, LOST = 0.4, 3, 2.0
"""Share of liars; how often they are drawn in each round; percent of its error that they may add to the teacher."""
RULES = ("feddistill", "mean")
CORNER = 0.02
"""Share of the windows of which a liar claims to know more than anybody."""
SHARP, VAGUE = 1 / SHARPEST, SHARPEST
"""Least and largest spread that is believed, in those of the shared model."""
Said = tuple[F4, F4]
"""Mean and spread (N, H) of one device."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What a liar can see: its own honest answer, those of all honest devices, the shared model's, and chance."""

    own: Said
    honest: list[Said]
    shared: Opinion
    rng: np.random.Generator

    def sure(self, mean: F4) -> Said:
        """This mean, with the sharpest spread that is believed."""
        return mean, self.spread * np.float32(SHARP)

    @property
    def spread(self) -> F4:
        """(N, H) the shared model's."""
        assert self.shared.spread is not None
        return self.shared.spread

    def off(self, spreads: float) -> F4:
        """The shared model's mean, so many of its spreads away."""
        return self.shared.value + np.float32(spreads) * self.spread


def _chance(scene: Scene) -> Said:
    mean = scene.rng.normal(0, 2, scene.own[0].shape).astype(np.float32)
    return mean, np.exp(scene.rng.normal(size=mean.shape)).astype(np.float32)


def _half(scene: Scene) -> Said:
    lies = scene.rng.random((len(scene.own[0]), 1)) < 1 / 2
    return scene.sure(np.where(lies, scene.off(-2), scene.own[0]))


def _corner(scene: Scene) -> Said:
    """Lies on few windows, and claims to know nothing but these."""
    lies = scene.rng.random((len(scene.own[0]), 1)) < CORNER
    sure = np.where(lies, np.float32(SHARP), np.float32(VAGUE))
    return np.where(lies, scene.off(-2), scene.own[0]), scene.spread * sure


ATTACKS: Mapping[str, Callable[[Scene], Said]] = {
    "honest, as loud as can be": lambda scene: scene.sure(scene.own[0]),
    "as far as the wire goes": lambda scene: scene.sure(np.full_like(scene.own[0], MOST_MEAN * MEAN_STEP)),
    "two spreads up": lambda scene: scene.sure(scene.off(2)),
    "two spreads down": lambda scene: scene.sure(scene.off(-2)),
    "one spread down": lambda scene: scene.sure(scene.off(-1)),
    "the opposite change": lambda scene: scene.sure(-scene.own[0]),
    "chance": _chance,
    "in a corner where alone it claims to be sure": _corner,
    "the shared model, as loud as can be": lambda scene: scene.sure(scene.shared.value),
    "copy an honest device": lambda scene: scene.honest[int(scene.rng.integers(len(scene.honest)))],
    "the least of what honest devices say": lambda scene: scene.sure(np.min([said[0] for said in scene.honest], 0)),
    "honest on half of the windows": _half,
}


def attacked(
    strategy: Strategy, lie: Callable[[Scene], Said], rule: str, rng: np.random.Generator, share: float = SHARE
) -> Strategy:
    """The same reports under a rule, with a lie in the place of some devices drawn by chance."""
    devices = strategy.devices()
    said: dict[DeviceId, Said] = {}
    for device, ballot in zip(devices, strategy.ballots(), strict=True):
        assert isinstance(ballot.votes, ForecastVotes)
        said[device] = forecast_values(ballot.votes)
    liars = {devices[at] for at in rng.permutation(len(devices))[: round(share * len(devices))]}
    honest = [values for device, values in said.items() if device not in liars]
    fused = make_strategy(_rule(strategy, rule), strategy.shared, strategy.anchors)
    for device, values in said.items():
        scene = Scene(values, honest, strategy.shared, rng)
        fused.add(device, forecast_votes(*(lie(scene) if device in liars else values)))
    return fused


def _rule(strategy: Strategy, rule: str) -> DistilSettings:
    return msgspec.structs.replace(strategy.settings, strategy=rule)


def _truth(scene: Scene) -> Said:
    return scene.own


def _no_spread(scene: Scene) -> Said:
    return scene.own[0], scene.spread


def judged(bench: Bench, strategy: Strategy) -> dict[str, list[float]]:
    """Errors (mph) of a round's teacher: of the shared model alone, of both rules without and with each attack."""
    found = {"self": [teacher_error(make_strategy(_rule(strategy, "self"), strategy.shared), bench)]}
    for rule in RULES:
        for name, lie in {"": _truth, **ATTACKS}.items():
            fused = (attacked(strategy, lie, rule, np.random.default_rng(draw)) for draw in range(DRAWS))
            found[f"{rule}, {name}" if name else rule] = [teacher_error(each, bench) for each in fused]
    everybody = attacked(strategy, _no_spread, RULES[0], np.random.default_rng(0), share=1.0)
    found[f"{RULES[0]} with no spread"] = [teacher_error(everybody, bench)]
    return found


def measured(options: Options, *, rounds: int, seeds: int) -> Outcome:
    """What lies cost a teacher of forecasts; in --quick nobody has learnt much, and nothing is judged."""
    torch.set_num_threads(1)
    budget, seeds = (QUICK, 1) if options.quick else (replace(Budget(), rounds=rounds), seeds)
    errors: dict[str, list[float]] = {}
    for seed in range(seeds):
        with TemporaryDirectory(prefix="forecast-attacks-") as home:
            fleet = Fleet(Path(home), sensors(), seed, budget, None)
            for number in range(budget.rounds + 1):
                fleet.round(number)
                if number:
                    bench = open_bench(Path(home) / "jobs" / f"{SPEC.name}-{number}")
                    strategy = hear(bench, inputs_of(bench.asked.samples, SPEC)).strategy
                    assert strategy is not None
                    for name, found in judged(bench, strategy).items():
                        errors.setdefault(name, []).extend(found)
    mean = {name: float(np.mean(found)) for name, found in errors.items()}
    lost = {
        name: 100 * (value / mean[name.partition(",")[0].partition(" with ")[0]] - 1) for name, value in mean.items()
    }
    rows: list[list[object]] = [["rule, liars", "teacher's error, mph", "% more than honest", "% more than self"]]
    rows += [
        [name, f"{value:.3f}", f"{lost[name]:.1f}", f"{100 * (value / mean['self'] - 1):.1f}"]
        for name, value in mean.items()
    ]
    ours = [name for name in mean if name.startswith("feddistill, ")]
    worst = max(ours, key=lambda name: lost[name])
    told = f"speed, {SHARE:.0%} of forecasters lie, {budget.rounds} rounds, {seeds} seeds: the worst ({worst}) adds"
    targets = [Target(f"percent of its error that {worst} adds", lost[worst], LOST)]
    figures = {"errors": errors, "lost": lost}
    return Outcome(f"{told} {lost[worst]:.1f} %", figures, () if options.quick else targets, rows)


if __name__ == "__main__":
    raise SystemExit(run(measured, rounds=Own(2, "how many"), seeds=Own(1, "how many")))
