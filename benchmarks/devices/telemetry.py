"""What sampling a board every second costs: share of one CPU, beside reading the same files without any of our code.

The board is a recorded AGX Orin, the one with most sensors, as files on this machine's disk; a minute of samples holds
one asking of what costs a process. The processor time of those processes is counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import Options, Outcome, Target, ratios, run, spread
from devices.boards import Machine
from devices.telemetry.sampler import SLOW_S, Sampler
from devices.telemetry.textfile import write_textfile
from tests.fakes.boards import fake_board

BOARD = "jetson-agx-orin-r36.4.4"
LIMIT = 0.005
EVERY_S = 1.0


def measure(options: Options) -> Outcome:
    """CPU share of sampling every second, with the Prometheus file."""
    minutes = 5 if options.quick else 30
    with TemporaryDirectory() as name:
        folder = Path(name)
        fixed = fake_board(BOARD, folder / "board")
        machine = Machine(fixed.root)  # real commands: their cost is the point
        sampler = Sampler(machine, state_dir=folder)
        clock = count()
        paths = sorted(path for path in machine.root.rglob("*") if path.is_file() and _changes(path))
        cases: dict[str, Callable[[], object]] = {
            "sample": partial(_minute, partial(_sample, sampler, clock, folder / "roadcast.prom")),
            "files": partial(_minute, partial(_read, paths)),
        }
        seconds: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(minutes):
            for case, one in cases.items():
                seconds[case].append(_cpu(one))
        readings = len(sampler.history[-1].values)
    shares = spread([each / SLOW_S for each in seconds["sample"]])
    floor = spread([each / SLOW_S for each in seconds["files"]])
    over = ratios(seconds["sample"], seconds["files"])
    headline = (
        f"sampling {readings} readings every second takes {shares.median:.3%} of a CPU (target {LIMIT:.1%}), "
        f"{over.median:.1f} x reading {len(paths)} files with nothing made of them"
    )
    rows = [("", "share of a CPU"), ("sampling", str(shares)), ("reading files", str(floor)), ("ratio", str(over))]
    figures = {"share": shares, "files_share": floor, "ratio": over, "readings": readings, "minutes": minutes}
    return Outcome(headline, figures, [Target("share of a CPU", shares.median, LIMIT)], rows)


def _changes(path: Path) -> bool:
    return path.name.endswith(("temp", "_input", "_alarm", "load", "cur_freq", "stat", "meminfo", "cnt", "cur_state"))


def _sample(sampler: Sampler, clock: count[int], textfile: Path) -> None:
    write_textfile(textfile, sampler.sample(next(clock) * EVERY_S))


def _read(paths: list[Path]) -> None:
    for path in paths:
        path.read_bytes()


def _minute(one: Callable[[], object]) -> None:
    for _ in range(int(SLOW_S / EVERY_S)):
        one()


def _cpu(case: Callable[[], object]) -> float:
    """Processor seconds of this process and of those that it waited for."""
    before, begun = os.times(), time.process_time()
    case()
    after = os.times()
    children = after.children_user + after.children_system - before.children_user - before.children_system
    return time.process_time() - begun + children


if __name__ == "__main__":
    raise SystemExit(run(measure))
