"""Folders of wheels for boards without internet: filled by pip from a local folder, installed by a unit's own lines."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devices.provision.wheels import Target, requirements
from edge_protocol.errors import ConfigError, NotReadyError, StoreError
from roadcast.commands.flash import app
from roadcast.wheelhouse import Wheelhouse, fill
from tests.fakes.wheels import wheel

BOARD = Target("3.10", "2.35", "aarch64")
NEEDS = ("alpha>=1", 'beta; python_version < "3.11"', 'gamma; python_version >= "3.11"', 'torch; extra == "train"')


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder with wheels of several platforms and versions, and ours."""
    folder = tmp_path / "links"
    for tags in (
        "cp310-cp310-manylinux_2_28_aarch64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp310-cp310-manylinux_2_28_x86_64",
    ):
        wheel(folder, "alpha", "1.5", tags=tags)
    wheel(folder, "alpha", "2.0", tags="cp310-cp310-manylinux_2_38_aarch64")
    for name in ("beta", "gamma", "delta", "torch"):
        wheel(folder, name, needs=["delta"] if name == "beta" else [])
    wheel(folder, "roadcast", "0.1.0", needs=NEEDS, extras="train")
    return folder


def _fill(links: Path, out: Path, *, pins: str = "", **more: object) -> Wheelhouse:
    (out.parent / "pins").write_text(pins)
    own = links / "roadcast-0.1.0-py3-none-any.whl"
    return fill(out, BOARD, wheel=own, constraints=out.parent / "pins", find_links=[links], offline=True, **more)  # type: ignore[arg-type]


def test_the_board_s_wheels_are_fetched(links: Path, tmp_path: Path) -> None:
    """Of its Python, processor and C library; what only its Python needs too, though pip runs on another."""
    filled = _fill(links, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").glob("*.whl")}
    wanted = {
        "alpha-1.5-cp310-cp310-manylinux_2_28_aarch64.whl",
        "beta-1.0-py3-none-any.whl",
        "delta-1.0-py3-none-any.whl",
        "roadcast-0.1.0-py3-none-any.whl",
    }
    assert wanted <= names <= wanted | {"gamma-1.0-py3-none-any.whl"}  # pip may bring what its own Python needs
    assert set(filled.wheels) == names
    text = (tmp_path / "out/requirements.txt").read_text()
    assert text == requirements({path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.whl")})


def test_a_second_run_writes_nothing_and_another_cleans_up(links: Path, tmp_path: Path) -> None:
    """A newer version takes the older one's place; a wheel that somebody put there stays and is hashed."""
    out = tmp_path / "out"
    _fill(links, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    _fill(links, out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    wheel(out, "onnxruntime_gpu", tags="cp310-cp310-linux_aarch64")
    wheel(links, "delta", "1.1")
    filled = _fill(links, out, extras=["train"])
    assert {"delta-1.1-py3-none-any.whl", "torch-1.0-py3-none-any.whl"} < set(filled.wheels)
    assert "delta-1.0-py3-none-any.whl" not in filled.wheels
    assert "onnxruntime-gpu==1.0" in (out / "requirements.txt").read_text()


def test_a_wheel_that_carries_others_along_is_read_by_its_own_metadata(links: Path, tmp_path: Path) -> None:
    """As setuptools does: the packages that are packed into it ask for nothing on its behalf."""
    with zipfile.ZipFile(links / "delta-1.0-py3-none-any.whl", "a") as archive:
        archive.writestr("delta/_vendor/other-2.0.dist-info/METADATA", "Name: other\nRequires-Dist: nobody-has-this\n")
    assert "delta-1.0-py3-none-any.whl" in _fill(links, tmp_path / "out").wheels


def test_pins_hold(links: Path, tmp_path: Path) -> None:
    """A pinned version that is not there is an error with pip's own words, and the folder stays empty."""
    with pytest.raises(NotReadyError, match=r"alpha==1\.4"):
        _fill(links, tmp_path / "out", pins="alpha==1.4\n")
    assert list((tmp_path / "out").iterdir()) == []


def test_pins_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Such as a wheel, where the list of them was meant."""
    (tmp_path / "pins").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ConfigError, match=r"--constraints: .*pins is no text"):
        fill(tmp_path / "out", BOARD, constraints=tmp_path / "pins", offline=True)


def test_a_missing_wheel_is_named(links: Path, tmp_path: Path) -> None:
    """What only the board's Python needs is looked for as well."""
    (links / "delta-1.0-py3-none-any.whl").unlink()
    with pytest.raises(NotReadyError, match="delta"):
        _fill(links, tmp_path / "out")


def test_a_disk_that_refuses_is_named(links: Path, tmp_path: Path) -> None:
    """A file where the folder should be."""
    (tmp_path / "out").write_text("")
    with pytest.raises(StoreError, match="out"):
        _fill(links, tmp_path / "out")


def test_the_command_tells_where_gpu_builds_come_from(links: Path, tmp_path: Path) -> None:
    """By the maker's name; and a board that may have several JetPacks must be told which."""
    (tmp_path / "pins").write_text("")
    command = [
        "wheels",
        "--board",
        "jetson-orin-nano",
        "--out",
        str(tmp_path / "out"),
        "--constraints",
        str(tmp_path / "pins"),
    ]
    command += ["--wheel", str(links / "roadcast-0.1.0-py3-none-any.whl"), "--find-links", str(links), "--offline"]
    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, ConfigError)
    assert "--jetpack 6" in str(refused)
    told = CliRunner().invoke(app, [*command, "--jetpack", "6"], catch_exceptions=False).stdout
    assert "NVIDIA's Jetson AI Lab" in told
    assert "alpha-1.5-cp310-cp310-manylinux_2_28_aarch64.whl\t0.0" in told
    told = CliRunner().invoke(app, [*command, "--jetpack", "6", "--json"], catch_exceptions=False).stdout
    assert json.loads(told)["target"]["python"] == "3.10"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("board", "jetpack"), [("jetson-orin-nano", "6"), ("jetson-thor", "7")])
def test_the_true_wheels_of_a_board_are_there(board: str, jetpack: str, tmp_path: Path) -> None:
    """Ours is built, the rest downloaded at the pinned versions; every wheel is for the board."""
    command = ["wheels", "--board", board, "--jetpack", jetpack, "--out", str(tmp_path / "out"), "--json"]
    filled = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    names = set(filled["wheels"])
    for wanted in (
        "roadcast",
        "onnxruntime",
        "numpy",
        "opencv_python_headless",
        "msgspec",
        "paho_mqtt",
        "cryptography",
    ):
        assert any(name.startswith(f"{wanted}-") for name in names), names
    assert all(name.endswith(("any.whl", "aarch64.whl")) for name in names)
