"""What twelve cameras teach the shared model, and what their own heads are worth, against every rival method.

The yardstick is the gap from self-training (the same distillation, no device) to central training on all images. A run
takes hours; each method and seed is kept (`kept`), so that one that was stopped goes on. Beside ``--rounds`` and
``--seeds``: ``--alpha`` (Dirichlet), ``--offline`` (share of devices away in a round), ``--arms a,b``, ``--plot FILE``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Spread, Target, run, spread
from benchmarks.learning import answers, fleet, vehicle_arms
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import deal_world
from benchmarks.learning.kept import FOLDER, code_of, kept, mark_of
from benchmarks.learning.series_report import sign_flips
from benchmarks.learning.vehicle_arms import ARMS, Found
from broker_server import distiller, training
from broker_server.strategies import feddistill, mixture, ratios
from devices.packs import ImagePack, open_pack
from edge_models import augment, ratio_head
from edge_protocol import votes
from edge_protocol.errors import DataError
from roadcast.data.find import find_data_dir

PACK = "vehicle6_64_jpeg.npz"
OURS, CONTROL, CEILING = "feddistill", "self", "central"
TEACHERS = ("anchors", "self", "mean", "feddf", "dsfl")
"""Methods that send no weights."""
WEIGHTS = ("fedavg", "fedprox")
OWN = ("local", "fedper", "ditto")
"""Methods whose personal students are rivals on a device's own test; so is the shared head alone."""
CLOSED, FEWER = 0.5, 300.0
"""Targets: share of the gap closed, and bytes up of FedAvg in those of ours."""
_CODE = (fleet, answers, vehicle_arms, distiller, training, feddistill, mixture, ratios, augment, ratio_head, votes)
QUICK = Setting(devices=4, rounds=1, steps=3, first_steps=10, local_steps=3)
QUICK_ARMS = ("local", "self", "feddistill", "ditto", "central")
Runs = Mapping[str, Sequence[Found]]


@dataclass(frozen=True)
class Plan:
    """What is run: a setting, how many seeds, which methods, and where what was trained is kept."""

    setting: Setting
    seeds: int
    arms: Sequence[str]
    cache: Path
    plot: Path | None = None


def measured(options: Options, *, plan: Plan) -> Outcome:
    """Run every method on the same partition, steps and seeds; --quick only shows that it runs, and has no target."""
    torch.set_num_threads(1)
    setting, seeds, arms = (QUICK, 1, QUICK_ARMS) if options.quick else (plan.setting, plan.seeds, plan.arms)
    pack, mark = load()
    runs: dict[str, list[Found]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name in arms:
            found = kept(plan.cache, file_of(name, setting, seed, mark), partial(_train, name, pack, setting, seed))
            runs[name].append({**found["made"], "cpu_s": found["cpu_s"]})
            sys.stderr.write(f"seed {seed} {name}: {runs[name][-1]['curve'][-1]:.3f} in {found['cpu_s']:.0f} CPU s\n")
    if plan.plot:
        draw(runs, plan.plot)
    told = f"vehicle, Dirichlet {setting.alpha:g}, {setting.offline:.0%} away, {setting.rounds} rounds, {seeds} seeds"
    figures = {"runs": {name: [_without_images(found) for found in each] for name, each in runs.items()}}
    figures["setting"] = asdict(setting)
    if options.quick or not {OURS, CONTROL, CEILING} <= set(runs):
        return Outcome(f"{told}: {len(runs)} methods ran; too few to judge", figures, rows=rows_of(runs))
    closed = spread([_closed(*three) for three in zip(*(runs[name] for name in (OURS, CONTROL, CEILING)), strict=True)])
    return Outcome(
        f"{told}: {OURS} closes {closed} of the gap from {CONTROL} to {CEILING}",
        {**figures, "closed": closed, "p": {name: chance_of(runs, name) for name in runs if name != OURS}},
        list(_targets(runs, closed)),
        rows_of(runs),
    )


def load() -> tuple[ImagePack, str]:
    """The pack of real crops, and the hash of its file."""
    folder = find_data_dir().path
    if folder is None or not (folder / PACK).exists():
        raise DataError(f"this benchmark needs {PACK}; name its folder in $ROADCAST_DATA")
    pack = open_pack(folder / PACK)
    if not isinstance(pack, ImagePack):
        raise DataError(f"{PACK} holds no images")
    return pack, sha256((folder / PACK).read_bytes()).hexdigest()


def file_of(name: str, setting: Setting, seed: int, data: str) -> str:
    """Name under which a method's run is kept."""
    return f"vehicle-{mark_of(asdict(setting), data, code_of(_CODE))}-s{seed}-{name}"


def _train(name: str, pack: ImagePack, setting: Setting, seed: int) -> Found:
    return ARMS[name](deal_world(pack, devices=setting.devices, alpha=setting.alpha, seed=seed), setting, seed)


def _closed(ours: Found, control: Found, ceiling: Found) -> float:
    last, low, high = (found["curve"][-1] for found in (ours, control, ceiling))
    return float((last - low) / (high - low))


def chance_of(runs: Runs, rival: str) -> float:
    """p-value of the difference to a rival: seeds and students are means, images of the test are the pairs."""
    ours, theirs = (np.mean([found["right"] for found in runs[name]], axis=0) for name in (OURS, rival))
    return sign_flips(ours - theirs)


def _targets(runs: Runs, closed: Spread) -> list[Target]:
    targets = [
        Target(f"share of the gap closed, p {chance_of(runs, CONTROL):.2g}", closed.median, CLOSED, at_most=False)
    ]
    for name in (*TEACHERS, *WEIGHTS):
        if name in runs:
            ahead = 100 * (_shared(runs, OURS) - _shared(runs, name))
            chance = chance_of(runs, name)
            targets.append(Target(f"points above {name}, p {chance:.2g}", ahead, 0.0, at_most=False))
    for name in WEIGHTS:
        if name in runs:
            ratio = _mean(runs, name, "up") / _mean(runs, OURS, "up")
            targets.append(Target(f"bytes up of {name} in ours", ratio, FEWER, at_most=False))
    rivals = {name: _own(runs, name, "chosen") for name in OWN if name in runs} | {
        "shared only": _own(runs, OURS, "shared")
    }
    mean, worst = _own(runs, OURS, "chosen")
    for name, (theirs, theirs_worst) in rivals.items():
        targets.append(Target(f"own test, mean, points above {name}", 100 * (mean - theirs), 0.0, at_most=False))
        ahead = 100 * (worst - theirs_worst)
        targets.append(Target(f"own test, worst device, points above {name}", ahead, 0.0, at_most=False))
    return targets


def _shared(runs: Runs, name: str) -> float:
    return float(np.mean([found["curve"][-1] for found in runs[name]]))


def _mean(runs: Runs, name: str, key: str) -> float:
    return float(np.mean([found[key] for found in runs[name]]))


def _own(runs: Runs, name: str, head: str) -> tuple[float, float]:
    """Mean and worst device under a head, as means over seeds; NaN without."""
    tables = [found["own"].get(head, [float("nan")]) for found in runs[name]]
    if not all(np.isfinite(table).any() for table in tables):
        return float("nan"), float("nan")
    return float(np.mean([np.nanmean(table) for table in tables])), float(np.mean([np.nanmin(t) for t in tables]))


def rows_of(runs: Runs) -> list[list[object]]:
    """The table: percentages, bytes of a device in a round, CPU seconds of the whole course."""
    heads = ("shared", "personal", "chosen")
    rows: list[list[object]] = [
        ["method", "after 1 round", "shared model", "p", *(f"own {head}: mean, worst" for head in heads)]
    ]
    rows[0] += ["bytes up", "bytes down", "CPU s"]
    for name, found in runs.items():
        own = [_own(runs, name, head) for head in heads]
        row: list[object] = [name, f"{100 * np.mean([one['curve'][0] for one in found]):.1f}"]
        row.append(str(spread([round(100 * one["curve"][-1], 1) for one in found])))
        row.append("" if name == OURS or OURS not in runs else f"{chance_of(runs, name):.2g}")
        row += ["" if np.isnan(mean) else f"{100 * mean:.1f}, {100 * worst:.1f}" for mean, worst in own]
        row += [f"{_mean(runs, name, 'up'):,.0f}", f"{_mean(runs, name, 'down'):,.0f}"]
        rows.append([*row, f"{_mean(runs, name, 'cpu_s'):.0f}"])
    return rows


def _without_images(found: Found) -> Found:
    return {key: value for key, value in found.items() if key != "right"}


def draw(runs: Runs, path: Path) -> None:
    """Draw accuracy against the bytes that a device sent since the beginning, and against rounds."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only where a plot was asked for
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - likewise

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_bytes, by_round = figure.subplots(1, 2, sharey=True)
    for at, (name, found) in enumerate(runs.items()):
        curve, colour = 100 * np.mean([one["curve"] for one in found], axis=0), f"C{at % 10}"
        rounds = np.arange(1, len(curve) + 1)
        if len(curve) > 1:
            by_round.plot(rounds, curve, colour, label=name)
        if _mean(runs, name, "up"):
            by_bytes.plot(_mean(runs, name, "up") * rounds / 1e3, curve, colour, marker=".")
    by_bytes.set(xscale="log", xlabel="kilobytes sent by a device", ylabel="accuracy of the shared model, %")
    by_round.set(xlabel="round")
    by_round.xaxis.set_major_locator(MaxNLocator(integer=True))
    by_round.legend(fontsize="small", ncols=2)
    figure.savefig(path)


def main() -> int:
    """Take this benchmark's own options off the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rounds", type=int, default=Setting.rounds)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=Setting.alpha)
    parser.add_argument("--offline", type=float, default=Setting.offline)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--cache", type=Path, default=FOLDER)
    parser.add_argument("--plot", type=Path)
    found, rest = parser.parse_known_args(sys.argv[1:])
    setting = Setting(alpha=found.alpha, rounds=found.rounds, offline=found.offline)
    arms = found.arms.split(",")
    if strange := sorted(set(arms) - set(ARMS)):
        parser.error(f"no method {strange[0]!r}; there are {', '.join(ARMS)}")
    plan = Plan(setting, found.seeds, arms, found.cache, found.plot)
    measure: Callable[[Options], Outcome] = partial(measured, plan=plan)
    measure.__doc__ = "What twelve cameras teach the shared model, against every rival method; see the module's text."
    return run(measure, rest)


if __name__ == "__main__":
    raise SystemExit(main())
