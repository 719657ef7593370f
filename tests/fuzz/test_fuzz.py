"""Spoilt bytes bring only documented errors, in bounded time and memory; and the harness would notice another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_protocol.delta import apply_delta
from edge_protocol.errors import DigestError
from tests.fuzz.run import fuzz
from tests.fuzz.target import Target
from tests.fuzz.targets import targets

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (1, 2)
QUICK, MANY = 20_000, 1_000_000


def run(inputs: int, seed: int, crashes: Path) -> dict[str, Any]:
    """Feed so many inputs in a process of limited memory; return what was counted."""
    command = [sys.executable, "-m", "tests.fuzz.run", f"--inputs={inputs}", f"--seed={seed}", f"--crashes={crashes}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout, done.stderr.decode()[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    assert not told["broken"]
    return told


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_spoilt_bytes_bring_only_documented_errors(tmp_path: Path, seed: int) -> None:
    """Messages, manifests, topics, chunks, deltas, coded votes and files of a release; every target has its share."""
    told = run(QUICK, seed, tmp_path)
    assert told["inputs"] >= 0.99 * QUICK
    assert set(told["targets"]) == set(targets())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_spoilt_inputs_bring_only_documented_errors(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The same at length, and most inputs are refused, none of the targets all of them or none by accident."""
    told = run(MANY + 1000, 20_261_126, tmp_path)
    record_property("inputs", told["inputs"])
    assert told["inputs"] >= MANY
    for name, counted in told["targets"].items():
        assert bool(counted["refused"]) == bool(targets()[name].errors), name
        assert name.startswith("trust/") or counted["refused"] < counted["inputs"], name  # these compare hashes


def test_the_shares_add_up() -> None:
    """Inputs are in thousandths."""
    assert sum(target.share for target in targets().values()) == 1000


@pytest.mark.parametrize("name", sorted(set(targets()) - {"brain"}))  # which reads one corpus as four kinds of message
def test_what_is_not_spoilt_is_taken(name: str) -> None:
    """The corpus is legal, so that what is spoilt of it is near to legal."""
    for data in targets()[name].corpus:
        targets()[name].feed(data)


def test_another_error_is_a_finding() -> None:
    """An undocumented error ends the target, and is given back with its input."""

    def careless(data: bytes) -> object:
        return [][len(data)]

    counted, crash = fuzz("careless", Target(careless, [b"abc"], ValueError, 1), 100, 1)
    assert counted["inputs"] == 1
    assert crash is not None
    assert isinstance(crash[1], IndexError)


@pytest.mark.parametrize("header", [b"[" * 3000, b'{"a":' * 3000, b'{"a":{"data_offsets":[0.0,2.0],"dtype":"F16"}}'])
def test_a_base_with_a_header_that_no_file_has_is_refused(header: bytes) -> None:
    """Found by spoiling: nesting ended in a RecursionError."""
    base = len(header).to_bytes(8, "little") + header + bytes(2)
    with pytest.raises(DigestError):
        apply_delta(base, b"RCD\x01" + bytes(8))
