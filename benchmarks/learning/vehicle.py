"""What twelve cameras teach the shared model: `feddistill` against the plain mean and the control without devices.

The yardstick is the gap from self-training (the same distillation, no device) to central training on all images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.harness import Options, Outcome, Target, run, spread
from benchmarks.learning.fleet import ARMS, deal_world, run_arm
from broker_server.distil_job import DistilSettings
from devices.packs import ImagePack, open_pack
from edge_protocol.errors import DataError
from roadcast.data.find import find_data_dir

DEVICES, ALPHA = 12, 0.1
PACK = "vehicle6_64_jpeg.npz"
CLOSED = 0.5
"""Share of the gap that `feddistill` has to close after all rounds."""


def measured(options: Options, *, rounds: int, seeds: int) -> Outcome:
    """Run every arm on the same partition, steps and seeds; --quick only shows that it runs, and has no target."""
    torch.set_num_threads(1)
    pack = image_pack()
    rounds, steps, seeds = (1, 5, 1) if options.quick else (rounds, 150, seeds)
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    curves: dict[str, list[list[float]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        world = deal_world(pack, devices=DEVICES, alpha=ALPHA, seed=seed)
        settings = DistilSettings(steps=steps, first_steps=20 if options.quick else 400, seed=seed)
        for name, arm in ARMS.items():
            curve: list[float] = []
            begun = time.process_time()
            found[name].append(run_arm(world, arm, rounds=rounds, settings=settings, say=curve.append))
            curves[name].append(curve)
            sys.stderr.write(f"seed {seed} {name}: {found[name][-1]:.3f} in {time.process_time() - begun:.0f} CPU s\n")
    rows: list[list[object]] = [["arm", "accuracy of the shared model, mean over tiers"]]
    rows += [[name, str(spread(values))] for name, values in found.items()]
    figures = {"accuracy": found, "curves": curves, "rounds": rounds, "steps": steps}
    setting = f"vehicle, Dirichlet {ALPHA}, {rounds} rounds, {seeds} seeds"
    if options.quick:
        return Outcome(f"{setting}, {steps} steps: every arm ran; too short to judge", figures, rows=rows)
    closed = spread(
        [
            (ours - control) / (central - control)
            for ours, control, central in zip(found["feddistill"], found["self"], found["central"], strict=True)
        ]
    )
    return Outcome(
        f"{setting}: feddistill closes {closed} of the gap from self to central",
        figures | {"closed": closed},
        [Target("share of the gap closed", closed.median, CLOSED, at_most=False)],
        rows,
    )


def image_pack() -> ImagePack:
    """The real crops.

    Raises:
        DataError: they are not on this machine.
    """
    place = find_data_dir().path
    if place is None or not (place / PACK).exists():
        raise DataError(f"this benchmark needs {PACK}; name its folder in $ROADCAST_DATA")
    pack = open_pack(place / PACK)
    assert isinstance(pack, ImagePack)
    return pack


def main() -> int:
    """Take ``--rounds`` and ``--seeds`` off the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    found, rest = parser.parse_known_args(sys.argv[1:])
    measure: Callable[[Options], Outcome] = partial(measured, rounds=found.rounds, seeds=found.seeds)
    measure.__doc__ = "What twelve cameras teach the shared model. --rounds N and --seeds N make it shorter."
    return run(measure, rest)


if __name__ == "__main__":
    raise SystemExit(main())
