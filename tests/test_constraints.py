"""constraints.txt pins everything that is installed, for both generations of Python on the boards."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
BOARDS = {"3.10": "JetPack 6", "3.12": "JetPack 7"}
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def _pins(python: str) -> dict[str, Requirement]:
    """What constraints.txt pins on that Python, by name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    here = {"python_version": python}
    return {pin.name.lower(): pin for pin in found if pin.marker is None or pin.marker.evaluate(here)}


@pytest.mark.parametrize("python", [*BOARDS, "3.11"])
def test_every_dependency_is_pinned_within_its_range(python: str) -> None:
    """Each dependency and extra of ours has exactly one pinned version, and it is one that we allow."""
    pins = _pins(python)
    wanted = [Requirement(line) for line in requires("roadcast") or []]
    for need in wanted:
        if need.name == "tensorrt":
            continue  # comes with the board
        pin = pins[need.name.lower().replace("_", "-")]
        (only,) = pin.specifier
        assert only.operator == "=="
        assert need.specifier.contains(only.version), f"{need} against {pin}"


def test_edge_pins_differ_between_the_boards_where_wheels_do() -> None:
    """Python 3.10 gets the last onnxruntime and numpy that have wheels for it."""
    old, new = _pins("3.10"), _pins("3.12")
    assert str(old["onnxruntime"].specifier) != str(new["onnxruntime"].specifier)
    assert str(old["numpy"].specifier) != str(new["numpy"].specifier)


@pytest.mark.slow
@pytest.mark.parametrize("python", BOARDS)
def test_the_edge_set_resolves_to_wheels_on_aarch64(python: str, tmp_path: Path) -> None:
    """`pip install roadcast` on a board finds a binary wheel of every package, at the pinned versions.

    pip evaluates markers for the Python it runs on, so the pins of the board's Python are written out first.
    """
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{pin.name}{pin.specifier}\n" for pin in _pins(python).values()), encoding="utf-8")
    base = [str(Requirement(line)) for line in requires("roadcast") or [] if "extra ==" not in line]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
    command += ["--target", str(tmp_path / "none"), "--only-binary=:all:", "--python-version", python]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    done = subprocess.run(
        [*command, "-c", str(constraints), *base], capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr[-2000:]
