"""Which wheels a board takes, pins for its Python, and the hashes beside them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from devices.provision.wheels import Target, name_and_version, pins_for, requirements, target_of
from edge_protocol.errors import ConfigError


@pytest.mark.parametrize(
    ("board", "jetpack", "python", "wanted"),
    [
        ("jetson-orin-nano", "6", None, ("3.10", "2.35", "aarch64")),
        ("jetson-orin-nano", "6.2.1", None, ("3.10", "2.35", "aarch64")),
        ("jetson-agx-orin", "7.2", None, ("3.12", "2.39", "aarch64")),
        ("jetson-thor", None, None, ("3.12", "2.39", "aarch64")),
        ("jetson-thor", "7", None, ("3.12", "2.39", "aarch64")),
        ("jetson-thor", "7.0", None, ("3.12", "2.39", "aarch64")),
        ("jetson-xavier-nx", "5", "3.11", ("3.11", "2.31", "aarch64")),
        ("raspberry-pi-5", None, "3.11", ("3.11", "2.28", "aarch64")),
        ("x86-64", None, "3.13", ("3.13", "2.28", "x86_64")),
    ],
)
def test_a_board_and_its_jetpack_make_a_target(
    board: str, jetpack: str | None, python: str | None, wanted: tuple[str, str, str]
) -> None:
    """Python and C library of its system, unless another Python is named."""
    target = target_of(board, jetpack, python)
    assert (target.python, target.glibc, target.machine) == wanted


@pytest.mark.parametrize(
    ("board", "jetpack", "python", "says"),
    [
        ("jetson-orin-nano", None, None, "--jetpack 6 or --jetpack 7.2"),
        ("jetson-orin-nano", "4", None, "say which JetPack"),
        ("jetson-xavier-nx", "5", None, r"Python 3\.8, and Roadcast needs 3\.10"),
        ("jetson-nano", None, None, r"Python 3\.6"),
        ("raspberry-pi-4", None, None, "--python"),
        ("raspberry-pi-4", "6", "3.11", "no JetPack"),
        ("jetson-orin", "6", None, "there are jetson-nano"),
        ("x86-64", None, "3.11; rm", "no version"),
        ("x86-64", None, "3.9", "needs 3.10"),
    ],
)
def test_nothing_is_guessed(board: str, jetpack: str | None, python: str | None, says: str) -> None:
    """Several JetPacks, one that the board has not, a Python that is too old, a system that is not known."""
    with pytest.raises(ConfigError, match=says):
        target_of(board, jetpack, python)


def test_older_c_libraries_are_taken_and_newer_not() -> None:
    """Down to 2.17, with its old name."""
    tags = Target("3.10", "2.35", "aarch64").platforms
    assert tags[0] == "manylinux_2_35_aarch64"
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= set(tags)
    assert "manylinux_2_36_aarch64" not in tags


def test_pins_are_decided_for_the_board_s_python() -> None:
    """Whatever Python this runs on; every line of the project's own constraints is understood."""
    text = (Path(__file__).resolve().parents[3] / "constraints.txt").read_text(encoding="utf-8")
    old, new = pins_for(text, "3.10").splitlines(), pins_for(text, "3.12").splitlines()
    assert "numpy==2.2.6" in old
    assert not any(line.startswith("numpy==2.2.6") for line in new)
    names = [line.partition("==")[0] for line in old]
    assert len(names) == len(set(names))
    with pytest.raises(ConfigError, match="is not 'name==version'"):
        pins_for("numpy>=2", "3.10")


def test_every_wheel_is_named_with_its_hash() -> None:
    """Names as pip compares them; one version for several platforms has several hashes."""
    wheels = {
        "typing_extensions-4.16.0-py3-none-any.whl": b"a",
        "x-1.0+cu126-1-cp310-cp310-linux_aarch64.whl": b"b",
        "x-1.0+cu126-1-cp312-cp312-linux_aarch64.whl": b"c",
    }
    hashes = [sha256(content).hexdigest() for content in (b"a", b"b", b"c")]
    assert requirements(wheels).splitlines() == [
        f"typing-extensions==4.16.0 --hash=sha256:{hashes[0]}",
        f"x==1.0+cu126 --hash=sha256:{hashes[1]} --hash=sha256:{hashes[2]}",
    ]


@pytest.mark.parametrize(
    "name", ["x.whl", "../x-1-py3-none-any.whl", "x-1-py3-none-any.whl\n", "notes.txt", "x-1-a-b.whl"]
)
def test_what_is_no_wheel_is_refused(name: str) -> None:
    """Its name would be a line of what pip is given."""
    with pytest.raises(ConfigError, match="not the name of a wheel"):
        name_and_version(name)


def test_two_versions_of_one_package_are_refused() -> None:
    """On the board pip would choose, or fail; the message names both."""
    with pytest.raises(ConfigError, match=r"x is there as 1\.0 and 2\.0"):
        requirements({"x-1.0-py3-none-any.whl": b"", "x-2.0-py3-none-any.whl": b""})
