"""What twelve cameras teach the shared model, and what their own heads are worth, against every rival method.

The yardstick is the gap from self-training (the same distillation, no device) to central training on all images. A run
takes hours; each method and seed is kept (`kept`), so that one that was stopped goes on.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch

import edge_models
from benchmarks.harness import Options, Outcome, Own, run
from benchmarks.learning import answers, class_means, downlink, fleet, teachers, vehicle_arms
from benchmarks.learning.answers import Setting
from benchmarks.learning.fleet import deal_world
from benchmarks.learning.kept import CACHE, code_of, kept, mark_of
from benchmarks.learning.plots import draw
from benchmarks.learning.vehicle_arms import ARMS, Found
from benchmarks.learning.vehicle_report import CEILING, CONTROL, OURS, closed_of, rows_of, targets_of, verdicts_of
from broker_server import distil_job, distiller, proxy_set, strategies, training
from devices import preprocess
from devices.packs import ImagePack, open_pack
from edge_protocol import vote_codec, votes
from edge_protocol.errors import DataError
from roadcast.data.find import find_data_dir

PACK = "vehicle6_64_jpeg.npz"
_CODE = (
    *(fleet, answers, teachers, class_means, downlink, vehicle_arms, edge_models, strategies, distil_job, distiller),
    *(training, proxy_set, preprocess, votes, vote_codec),
)
QUICK = Setting(devices=4, rounds=1, steps=3, first_steps=10, local_steps=3)
QUICK_ARMS = ("local", "self", "feddistill", "ditto", "central")


def measured(
    options: Options,
    *,
    rounds: int,
    alpha: float,
    offline: float,
    seeds: int,
    arms: Sequence[str],
    cache: Path,
    plot: Path | None,
) -> Outcome:
    """What twelve cameras teach the shared model, against every rival method; --quick only shows that it runs.

    Partition, steps and seeds are the same for all.
    """
    torch.set_num_threads(1)
    setting = Setting(alpha=alpha, rounds=rounds, offline=offline)
    if options.quick:
        setting, seeds, arms = QUICK, 1, QUICK_ARMS
    pack, mark = load()
    runs: dict[str, list[Found]] = {name: [] for name in arms}
    for seed in range(seeds):
        for name in arms:
            found = kept(cache, file_of(name, setting, seed, mark), partial(_train, name, pack, setting, seed))
            runs[name].append({**found["made"], "cpu_s": found["cpu_s"]})
            sys.stderr.write(f"seed {seed} {name}: {runs[name][-1]['curve'][-1]:.3f} in {found['cpu_s']:.0f} CPU s\n")
    if plot:
        draw(runs, plot, ours=OURS)
    told = f"vehicle, Dirichlet {setting.alpha:g}, {setting.offline:.0%} away, {setting.rounds} rounds, {seeds} seeds"
    verdicts = verdicts_of(runs)
    figures: dict[str, object] = {
        "runs": {name: [_without_images(found) for found in each] for name, each in runs.items()}
    }
    figures |= {"setting": asdict(setting), "against": {name: asdict(verdict) for name, verdict in verdicts.items()}}
    rows = rows_of(runs, verdicts)
    if options.quick or not {OURS, CONTROL, CEILING} <= set(runs):
        return Outcome(f"{told}: {len(runs)} methods ran; too few to judge", figures, rows=rows)
    closed = closed_of(runs)
    return Outcome(
        f"{told}: {OURS} closes {closed} of the gap from {CONTROL} to {CEILING}",
        {**figures, "closed": closed},
        targets_of(runs, verdicts),
        rows,
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


def _without_images(found: Found) -> Found:
    return {key: value for key, value in found.items() if key != "right"}


def _arms(text: str) -> list[str]:
    arms = text.split(",")
    if strange := sorted(set(arms) - set(ARMS)):
        raise ArgumentTypeError(f"no method {strange[0]!r}; there are {', '.join(ARMS)}")
    return arms


if __name__ == "__main__":
    raise SystemExit(
        run(
            measured,
            rounds=Own(Setting.rounds, "how many"),
            seeds=Own(3, "how many"),
            alpha=Own(Setting.alpha, "Dirichlet concentration"),
            offline=Own(Setting.offline, "share of devices that are away in a round"),
            arms=Own(list(ARMS), f"these instead of all: {','.join(ARMS)}", _arms),
            cache=CACHE,
            plot=Own(None, "draw accuracy against bytes and rounds here (SVG)", Path),
        )
    )
