"""``python -m tests.fuzz.run --inputs 1000000 --seed 1``: feeds spoilt bytes to every reader, in bounded memory.

Each reader may raise the errors that it documents and no other, must come back within a minute, and has 256 MB beside
what the process held before. What breaks that is written to ``--crashes``, and is the exit code.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

from tests.fuzz.mutate import mutate
from tests.fuzz.target import Target
from tests.fuzz.targets import targets

HANG_S = 60
ROOM = 256 << 20
_AT_ONCE = 1000
Crash: TypeAlias = tuple[bytes, BaseException]


class Hung(BaseException):
    """An input took too long."""


def fuzz(
    name: str, target: Target, inputs: int, seed: int
) -> tuple[dict[str, Any], tuple[bytes, BaseException] | None]:
    """Feed a target; return what was counted, and the first input that broke it."""
    rng = random.Random(f"{seed}/{name}")
    refused, data, begun = 0, b"", time.perf_counter()
    try:
        for number in range(inputs):
            if number % _AT_ONCE == 0:
                signal.alarm(HANG_S)
            data = rng.choice(target.corpus)
            if target.deep is not None and number % 2:
                data = target.deep(data, rng)
            else:
                data = mutate(data, rng, target.corpus)
            try:
                target.feed(data)
            except target.errors:
                refused += 1
    except (Exception, Hung) as error:  # noqa: BLE001 - whatever it is, it is the finding
        return {"inputs": number + 1, "refused": refused}, (data, error)
    finally:
        signal.alarm(0)
    return {"inputs": inputs, "refused": refused, "seconds": round(time.perf_counter() - begun, 2)}, None


def _hang(_number: int, _frame: object) -> None:
    raise Hung


def main() -> int:
    """Run, and print what was counted as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="targets whose name begins with this")
    parser.add_argument("--crashes", type=Path, default=None, help="folder for inputs that broke something")
    asked = parser.parse_args()
    found = {name: target for name, target in targets().items() if name.startswith(asked.only)}
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, held + ROOM))
    signal.signal(signal.SIGALRM, _hang)
    whole, told, broken = sum(target.share for target in found.values()), {}, {}
    for name, target in found.items():
        told[name], crash = fuzz(name, target, max(1, asked.inputs * target.share // whole), asked.seed)
        if crash is not None:
            data, error = crash
            broken[name] = f"{type(error).__name__}: {str(error)[:200]}; {len(data)} bytes {data[:60].hex()}"
            if asked.crashes is not None:
                asked.crashes.mkdir(parents=True, exist_ok=True)
                (asked.crashes / name.replace("/", "-")).write_bytes(data)
    total = sum(counted["inputs"] for counted in told.values())
    json.dump({"inputs": total, "targets": told, "broken": broken}, sys.stdout, indent=1)
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
