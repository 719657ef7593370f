"""What twelve cameras teach the shared model: `feddistill` against the plain mean and the control without devices.

The yardstick is the gap from self-training (the same distillation, no device) to central training on all images.
"""

from __future__ import annotations

import os
import sys
import time

import torch

from benchmarks.harness import Options, Outcome, Target, run, spread
from benchmarks.learning.fleet import ARMS, deal, run_arm
from broker_server.distil_job import DistilSettings
from devices.packs import ImagePack, open_pack
from edge_protocol.errors import DataError
from roadcast.data.find import find_data_dir

DEVICES, ALPHA = 12, 0.1
PACK = "vehicle6_64_jpeg.npz"
CLOSED = 0.5
"""Share of the gap that `feddistill` has to close after all rounds."""


def measure(options: Options) -> Outcome:
    """Run every arm on the same partition, steps and seeds; --quick only shows that it runs, and has no target.

    ``ROUNDS`` and ``SEEDS`` in the environment ask for fewer rounds or seeds than 20 and 3.
    """
    rounds, steps, seeds = (1, 5, 1) if options.quick else (20, 150, 3)
    rounds, seeds = (int(os.environ.get(name, value)) for name, value in (("ROUNDS", rounds), ("SEEDS", seeds)))
    torch.set_num_threads(1)
    place = find_data_dir()
    if place.path is None:
        raise DataError(f"this benchmark needs {PACK}; set ROADCAST_DATA to the folder that holds it")
    pack = open_pack(place.path / PACK)
    assert isinstance(pack, ImagePack)
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    curves: dict[str, list[list[float]]] = {name: [] for name in ARMS}
    for seed in range(seeds):
        world = deal(pack, devices=DEVICES, alpha=ALPHA, seed=seed)
        settings = DistilSettings(steps=steps, first_steps=400 if not options.quick else 20, seed=seed, device_cap=0.5)
        for name, arm in ARMS.items():
            curve: list[float] = []
            begun = time.process_time()
            found[name].append(run_arm(world, arm, rounds=rounds, settings=settings, say=curve.append))
            curves[name].append(curve)
            sys.stderr.write(f"seed {seed} {name}: {found[name][-1]:.3f} in {time.process_time() - begun:.0f} CPU s\n")
    closed = [
        (ours - control) / (central - control) if central > control else float("nan")
        for ours, control, central in zip(found["feddistill"], found["self"], found["central"], strict=True)
    ]
    rows: list[list[object]] = [["arm", "accuracy of the shared model, mean over tiers"]]
    rows += [[name, str(spread(values))] for name, values in found.items()]
    share, setting = spread(closed), f"vehicle, Dirichlet {ALPHA}, {rounds} rounds"
    return Outcome(
        headline=f"{setting}: feddistill closes {share} of the gap from self to central",
        figures={"accuracy": found, "curves": curves, "closed": closed, "rounds": rounds, "steps": steps},
        targets=[] if options.quick else [Target("share of the gap closed", share.median, CLOSED, at_most=False)],
        rows=rows,
    )


if __name__ == "__main__":
    raise SystemExit(run(measure))
