"""What its sensors' habits add to a device's own forecasts, through the job that the agent starts.

Eight devices of twelve sensors along a road each (METR-LA, one week), dealt as in `shared_trunks`, on the first release
that the centre distils. Each fits its personal head on its history with the sensors' numbers, and without them as if it
did not know its sensors; what it serves, personal or shared as it chose, is scored on the part of the time that
nobody has seen. Owns the comparison; owns neither training nor rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import msgspec
import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run
from benchmarks.learning.shared_trunks import FLEET, LAST, QUICK, SPEC, Budget, Fleet, sensors
from devices.packs import SeriesPack, open_pack
from edge_client.config import TrainConfig
from edge_client.labels import series_samples
from edge_client.replay import Kept, ReplayStore
from edge_models.head_weights import HeadType, HeadWeights
from edge_models.scales import Scale
from edge_protocol.errors import DataError
from edge_protocol.ids import DeviceId
from edge_protocol.task import SeriesInput

KINDS: Final[tuple[HeadType, ...]] = ("linear", "mlp")
DEFAULT: Final = KINDS[0]
Errors: TypeAlias = Mapping[str, Sequence[Sequence[float]]]
"""Arm → device → error in mph: overall, then at each horizon."""


def measured(options: Options, *, seeds: int) -> Outcome:
    """Heads with habits against heads without; ``--quick`` fits two devices, on a release that has hardly learnt."""
    torch.set_num_threads(1)
    pack = sensors()
    names, seeds = (list(FLEET)[:2], 1) if options.quick else (list(FLEET), seeds)
    budget = QUICK if options.quick else Budget(samples=TrainConfig().max_samples)
    return outcome_of([seed_of(pack, seed, budget, names) for seed in range(seeds)], judge=not options.quick)


def seed_of(pack: SeriesPack, seed: int, budget: Budget, names: Sequence[DeviceId]) -> Errors:
    """Errors of every arm of one seed: each device's, in the order of `names`."""
    with TemporaryDirectory(prefix="habits-") as home:
        fleet = Fleet(Path(home), pack, seed, budget, None)
        fleet.round(0)
        found = [dict(arms_of(fleet, name)) for name in names]
    return {arm: [each[arm] for each in found] for arm in found[0]}


def outcome_of(seeds: Sequence[Errors], *, judge: bool) -> Outcome:
    """Means over devices; ratios seed by seed. Target: at every horizon and seed the default type errs less."""
    means = {arm: np.array([np.mean(seed[arm], axis=0) for seed in seeds]) for arm in seeds[0]}
    ratio = {kind: means[told(kind, habits=True)] / means[told(kind, habits=False)] for kind in KINDS}
    minutes = horizons()
    rows: list[list[object]] = [["served, mean error in mph", "all", *(f"{at} min" for at in minutes)]]
    rows += [[arm, *(f"{value:.3f}" for value in each.mean(axis=0))] for arm, each in means.items()]
    rows += [
        [f"{kind}: with / without", *(f"{each.mean():.3f} ({each.min():.3f} to {each.max():.3f})" for each in found.T)]
        for kind, found in ratio.items()
    ]
    targets = [
        Target(f"{DEFAULT}: with habits / without, {at} min, worst seed", float(each.max()), 1.0)
        for at, each in zip(minutes, ratio[DEFAULT].T[1:], strict=True)
    ]
    figures = {"ratio": {kind: found.tolist() for kind, found in ratio.items()}, "seeds": seeds}
    shown = ", ".join(f"{each:.3f} at {at} min" for at, each in zip(minutes, ratio[DEFAULT].mean(0)[1:], strict=True))
    return Outcome(
        f"own error with habits over without, {DEFAULT} heads: {shown}", figures, targets if judge else (), rows
    )


def arms_of(fleet: Fleet, name: DeviceId) -> Iterator[tuple[str, list[float]]]:
    """Errors in mph of what a device serves in each arm: overall, then at each horizon."""
    tier, held = FLEET[name], fleet.own_test(name)
    yield "shared head", fleet.errors(tier, held, None)
    nameless = fleet.home / f"{name}-nameless.db"
    store = ReplayStore(nameless, 1 << 30)
    store.add(replace(kept, side=None) for kept in history(fleet.home / f"{name}-history.npz"))
    store.close()
    asked = msgspec.structs.replace(fleet.job(name, tier, LAST), proxy=None)
    for kind in KINDS:
        for habits, place in ((False, str(nameless)), (True, asked.replay)):
            folder, _ = fleet.train(name, msgspec.structs.replace(asked, heads=(kind,), replay=place))
            head = HeadWeights.from_bytes((folder / "personal.safetensors").read_bytes())
            yield told(kind, habits=habits), fleet.errors(tier, held, head)


def history(path: Path) -> Iterator[Kept]:
    """A device's history as its replay store keeps it."""
    pack = open_pack(path)
    if not isinstance(pack, SeriesPack):
        raise DataError(f"{path} holds images; a history is a series")
    return series_samples(pack, SPEC, Scale.fit(pack.values))


def told(kind: HeadType, *, habits: bool) -> str:
    """Name of an arm."""
    return f"{kind} head, with habits" if habits else f"{kind} head"


def horizons() -> list[int]:
    """Minutes ahead, in order."""
    assert isinstance(SPEC.input, SeriesInput)
    return [round(steps * SPEC.input.interval_s / 60) for steps in SPEC.horizons]


if __name__ == "__main__":
    raise SystemExit(run(measured, seeds=Own(3, "how many")))
