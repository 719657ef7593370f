"""Runs the methods on a series, keeps what was trained, and makes table, targets and headline of it.

Each seed and family of methods is kept once trained (`kept`), so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.harness import Options, Outcome, Target
from benchmarks.learning import series, series_arms, stacked
from benchmarks.learning.kept import code_of, kept, mark_of
from benchmarks.learning.series import DeviceSeries, SeriesTask, device_series
from benchmarks.learning.series_arms import FAMILIES, Budget, Scores
from broker_server.strategies import fedavg, trunk_sharing, weights
from devices.packs import SeriesPack, open_pack
from edge_models import head_fits, head_weights, losses, profiles, schedules, windows
from edge_protocol.errors import DataError
from roadcast.data.find import find_data_dir

F8 = npt.NDArray[np.float64]
OURS = "shared + personal"
RIVALS = ("local GRU", "FedAvg GRU")
CEILINGS = ("central", "central + personal")
KINDS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE %", "mae_unmasked": "MAE with outage as 0"}
SEEDS = (0, 1, 2)
QUICK = Budget(rounds=4, steps=15, head=20, central=60)
_FLIPS = 20_000
_CODE = (
    *(series, series_arms, stacked, fedavg, trunk_sharing, weights),
    *(head_fits, head_weights, losses, profiles, schedules, windows),
)


def measured(options: Options, *, task: SeriesTask, cache: Path) -> Outcome:
    """Run all methods for all seeds; ``--quick`` trains a hundredth for one seed and 4 devices, and judges nothing."""
    torch.set_num_threads(1)
    budget, seeds = (QUICK, SEEDS[:1]) if options.quick else (Budget(), SEEDS)
    pack, mark = _load(task)
    name = f"{task.spec.name}-{_fingerprint(task, budget, mark, quick=options.quick)}"
    runs: dict[str, list[Any]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in seeds:
        for family in FAMILIES:
            train = partial(_train, family, pack, task, seed, budget, quick=options.quick)
            found = kept(cache, f"{name}-s{seed}-{family}", train)
            seconds.setdefault(family, []).append(found["cpu_s"])
            for arm, scores in found["made"].items():
                runs.setdefault(arm, []).append(scores)
    errors = {arm: _stacked(scores) for arm, scores in runs.items()}
    return _outcome(task, budget, errors, seconds, judge=not options.quick)


def _load(task: SeriesTask) -> tuple[SeriesPack, str]:
    folder = find_data_dir().path
    path = None if folder is None else folder / f"{task.pack}.npz"
    if path is None or not path.exists():
        raise DataError(f"this benchmark needs {task.pack}.npz; name its folder in $ROADCAST_DATA")
    pack = open_pack(path)
    if not isinstance(pack, SeriesPack):
        raise DataError(f"{path} holds images; this benchmark needs a series")
    return pack, sha256(path.read_bytes()).hexdigest()


def _fleet(pack: SeriesPack, task: SeriesTask, seed: int, *, quick: bool) -> list[DeviceSeries]:
    columns = task.deal(pack, task.devices, np.random.default_rng(seed))
    if quick:
        columns, pack = columns[:4], pack.rows(slice(0, 4000))
    return [device_series(pack.columns(mine), task) for mine in columns]


def _train(
    family: str, pack: SeriesPack, task: SeriesTask, seed: int, budget: Budget, *, quick: bool
) -> dict[str, Scores]:
    return FAMILIES[family](_fleet(pack, task, seed, quick=quick), seed, budget)


def _fingerprint(task: SeriesTask, budget: Budget, data: str, *, quick: bool) -> str:
    settings = (asdict(budget), msgspec.json.encode(task.spec).decode(), task.devices, task.period_s, task.stride)
    return mark_of(settings, data, quick, code_of(_CODE))


def _stacked(scores: Sequence[Sequence[dict[str, list[float]]]]) -> dict[str, F8]:
    """(seeds, devices, H) float64 for each kind of error."""
    return {kind: np.array([[device[kind] for device in seed] for seed in scores]) for kind in scores[0][0]}


def sign_flips(difference: F8) -> float:
    """Two-sided p-value of a paired difference of n pairs: how often random signs give a mean as far from 0.

    Args:
        difference: (n,) float64.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_FLIPS, len(difference)))
    reached = np.abs(signs @ difference) >= np.abs(difference.sum()) - 1e-12
    return float((reached.sum() + 1) / (_FLIPS + 1))


def _pairs(task: SeriesTask, ours: F8, theirs: F8) -> F8:
    """(n, H) differences: of seeds and devices, or of devices where every seed has the same ones."""
    difference = ours - theirs
    return difference.mean(axis=0) if task.fixed else difference.reshape(-1, difference.shape[2])


def _outcome(
    task: SeriesTask, budget: Budget, errors: dict[str, dict[str, F8]], seconds: dict[str, list[float]], *, judge: bool
) -> Outcome:
    minutes = [f"{ahead / 60:g} min" for ahead in task.ahead_s]
    means = {
        arm: {kind: np.nanmean(table, axis=(0, 1)) for kind, table in found.items()} for arm, found in errors.items()
    }
    tests = {
        rival: [sign_flips(column) for column in _pairs(task, errors[OURS]["mae"], errors[rival]["mae"]).T]
        for rival in errors
        if rival != OURS
    }
    ratio = {rival: (means[OURS]["mae"] / means[rival]["mae"]).tolist() for rival in tests}
    targets = [
        Target(f"MAE of {OURS} / {rival}, {at}, with p {p:.2g}", value if p <= 0.05 else float("nan"), 1.0)
        for rival in RIVALS
        for at, value, p in zip(minutes, ratio[rival], tests[rival], strict=True)
    ]
    figures = {
        "mean": {arm: {kind: values.tolist() for kind, values in table.items()} for arm, table in means.items()},
        "mae_by_seed": {arm: np.nanmean(found["mae"], axis=1).tolist() for arm, found in errors.items()},
        "worst_device_mae": {arm: found["mae"].mean(axis=0).max(axis=0).tolist() for arm, found in errors.items()},
        "ratio": ratio,
        "p": tests,
        "cpu_s": seconds,
        "budget": asdict(budget),
        "horizons": minutes,
    }
    return Outcome(
        _headline(task, means, ratio, minutes), figures, targets if judge else (), _rows(means, ratio, minutes)
    )


def _rows(means: dict[str, dict[str, F8]], ratio: dict[str, list[float]], minutes: Sequence[str]) -> list[list[object]]:
    """The table; without outages the unmasked errors are the masked ones and left out; "ours" is `OURS`."""
    kinds = dict(KINDS)
    if np.allclose(means[OURS]["mae"], means[OURS]["mae_unmasked"]):
        del kinds["mae_unmasked"]
    names = [*kinds.values(), "ours / it"]
    rows: list[list[object]] = [["method", *(f"{kind} {at}" for kind in names for at in minutes)]]
    for arm, table in means.items():
        row = [float(value) for kind in kinds for value in table[kind]]
        rows.append([arm, *row, *ratio.get(arm, [1.0] * len(minutes))])
    return rows


def _headline(
    task: SeriesTask, means: dict[str, dict[str, F8]], ratio: dict[str, list[float]], minutes: Sequence[str]
) -> str:
    said = [
        f"{arm} {' / '.join(f'{value:.3f}' for value in means[arm]['mae'])}" for arm in (OURS, *RIVALS, CEILINGS[0])
    ]
    to_central = " / ".join(f"{value:.3f}" for value in ratio[CEILINGS[0]])
    return f"{task.spec.name}: MAE in {task.spec.unit} at {' / '.join(minutes)}: {'; '.join(said)}; ratio {to_central}"
