"""What flashing twenty targets over SSH takes: beside one alone, and again when nothing changed.

The targets are twenty folders behind one real sshd on loopback, so that this machine pays for both ends: with C cores
no more than C targets' work can go on at a time, and the efficiency is the gain over one target divided by that. A plan
without a file shows what connections alone cost. The wheels are random bytes, as large together as those of a board
without a GPU build; in a quick run a tenth of that, for which the limit on the second run is not meant.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import Options, Outcome, Target, interleaved, ratios, run, spread
from devices.provision.plan import Plan, make_plan
from devices.provision.site import InstallConfig
from devices.provision.ssh import Job, Place, flash_all
from edge_protocol.errors import RoadcastError
from tests.fakes.sshd import Sshd

TARGETS, AT_ONCE, ALONE = 20, 8, 3
WHEELS_MB = (36.0, 17.0, 15.0, 4.0, 1.0, 0.5, 0.3, 0.2)
"""About what OpenCV, ONNX Runtime, NumPy, cryptography and the smaller ones take."""
QUICK = 0.1
"""Share of those bytes in a quick run."""
LIMIT = 0.05


def measure(options: Options) -> Outcome:
    """Seconds for one target, for twenty, and for twenty without a change."""
    share = QUICK if options.quick else 1.0
    with TemporaryDirectory() as name:
        folder = Path(name)
        roots = [_tree(folder / f"root-{index}") for index in range(ALONE + TARGETS)]
        alone, fleet = roots[:ALONE], roots[ALONE:]
        plan = _plan(share)
        with Sshd(folder / "sshd") as sshd:
            _flash(sshd, alone, Plan((), ()))  # warm up
            ones = spread([_flash(sshd, [root], plan) for root in alone])
            first = _flash(sshd, fleet, plan)
            before = [_written(root) for root in fleet]
            cases = {
                "again": lambda: _flash(sshd, fleet, plan),
                "bare": lambda: _flash(sshd, fleet, Plan((), ())),
            }
            timed = interleaved(cases, repeats=3 if options.quick else 9, warm_up=0)
        writes = sum(_written(root) != earlier for root, earlier in zip(fleet, before, strict=True))
    size = sum(len(file.content) for file in plan.files) / 1e6
    gain = TARGETS * ones.median / first
    cores = min(os.cpu_count() or 1, AT_ONCE)
    second, bare, over_bare = spread(timed["again"]), spread(timed["bare"]), ratios(timed["again"], timed["bare"])
    again = second.median / first
    headline = (
        f"{TARGETS} targets of {size:.0f} MB: {first:.1f} s, {gain:.2f} x one after the other on {cores} cores, "
        f"parallel efficiency against one {gain / cores:.2f}; "
        f"again {second.median:.2f} s, {again:.1%} (target {LIMIT:.0%}), "
        f"{over_bare.median:.2f} x the same without a file; {writes} targets written to"
    )
    rows = [("", "seconds"), ("one", ones), (f"{TARGETS}", first), (f"{TARGETS} again", second), ("no files", bare)]
    figures = {
        "one_s": ones,
        "all_s": first,
        "again_s": second,
        "bare_s": bare,
        "again_over_bare": over_bare,
        "gain": gain,
        "efficiency": gain / cores,
        "mb": size,
    }
    targets = [Target("targets written to by the second run", writes, 0)]
    if not options.quick:
        targets.append(Target("second run / first", again, LIMIT))
    return Outcome(headline, figures, targets, rows)


def _flash(sshd: Sshd, roots: Sequence[Path], plan: Plan) -> float:
    begun = time.perf_counter()
    asyncio.run(_all(sshd, roots, plan))
    return time.perf_counter() - begun


async def _all(sshd: Sshd, roots: Sequence[Path], plan: Plan) -> None:
    """Each root is a place of its own, so that there is a call for each; `room` bounds them as `flash_all` does."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(root: Path) -> None:
        async with room:
            jobs, place = [Job(root.name, sshd.target(), plan)], Place(str(root), live=False)
            (result,) = await flash_all(jobs, sshd.login, place, at_once=1, told=lambda _device, _state: None)
            if isinstance(result, RoadcastError):
                raise result

    await asyncio.gather(*map(one, roots))


def _plan(share: float) -> Plan:
    wheels = {
        f"wheel{index}-1-py3-none-any.whl": os.urandom(int(mb * share * 1e6)) for index, mb in enumerate(WHEELS_MB)
    }
    wheels["roadcast-0.1.0-py3-none-any.whl"] = os.urandom(400_000)
    tree = {"fleet": "city", "device": "cam-1"}
    return make_plan(tree, InstallConfig(wheels="wheels"), {"/etc/roadcast/ca.pem": b"certificate"}, wheels)


def _tree(root: Path) -> Path:
    for folder in ("etc", "usr/bin", "usr/lib/systemd"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/python3").touch()
    return root


def _written(root: Path) -> list[tuple[str, int, int, int]]:
    """What any write would change: names, inodes and times."""
    found = [(path, path.lstat()) for path in sorted(root.rglob("*"))]
    return [(str(path), status.st_ino, status.st_mtime_ns, status.st_ctime_ns) for path, status in found]


if __name__ == "__main__":
    raise SystemExit(run(measure))
