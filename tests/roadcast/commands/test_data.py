"""``roadcast data`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge_protocol.errors import DataError
from roadcast.commands.data import app


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard output of a command."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_simulate_list_and_check(tmp_path: Path) -> None:
    """A simulated roadside can be written, listed and checked, for people and for programs."""
    code, out = run("simulate", "-o", tmp_path, "--per-class", "5", "--days", "1", "--json")
    assert code == 0
    files = json.loads(out)
    assert len(files) == 3
    code, out = run("list", "--data", tmp_path, "--json")
    found = json.loads(out)
    assert (code, found["origin"], len(found["packs"])) == (0, "--data", 3)
    assert "simulated: rendered vehicles" in run("list", "--data", tmp_path)[1]
    code, out = run("check", files[1], "--json")
    assert (code, json.loads(out)["facts"]["sensors"]) == (0, 28)
    assert "checked" in run("check", files[0])[1]


def test_list_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no data, it says that it will be simulated."""
    monkeypatch.delenv("ROADCAST_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert "built-in simulated roadside will be used" in run("list")[1]
    assert json.loads(run("list", "--json")[1]) == {
        "origin": "built-in simulated roadside",
        "path": None,
        "packs": [],
    }


def test_import_images(tmp_path: Path) -> None:
    """A folder becomes a pack; a broken file makes the exit code 5."""
    (tmp_path / "in/car").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "in/car/a.png"), np.zeros((20, 20, 3), np.uint8))
    code, out = run("import", tmp_path / "in", "-o", tmp_path / "a.npz", "--title", "mine", "--size", "16", "--json")
    assert code == 0
    assert json.loads(out)["shape"] == [1, 16, 16, 3]
    (tmp_path / "in/car/b.png").write_bytes(b"x")
    assert run("import", tmp_path / "in", "-o", tmp_path / "b.npz")[0] == 5
    assert (tmp_path / "b.npz").exists()


def test_import_records(tmp_path: Path) -> None:
    """With the task that they are for, the pack says which readings it holds."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "a.json").write_text('{"age": 61}')
    code, out = run("import", tmp_path, "-o", tmp_path / "a.npz", "--task", "clinic", "--json")
    assert code == 0
    assert json.loads(out)["facts"]["side"].startswith("age, age_measured, temperature")
    assert "side" not in json.loads(run("import", tmp_path, "-o", tmp_path / "b.npz", "--json")[1])["facts"]


def test_import_table(tmp_path: Path) -> None:
    """A CSV file becomes a pack with its unit and interval."""
    (tmp_path / "t.csv").write_text("time,a\n0,1\n60,\n120,3\n")
    code, out = run("import", tmp_path / "t.csv", "-o", tmp_path / "t.npz", "--unit", "veh/h", "--json")
    facts = json.loads(out)["facts"]
    assert (code, facts["unit"], facts["interval_s"], facts["missing"]) == (0, "veh/h", 60.0, 0.3333)


def test_bad_input_is_a_data_error(tmp_path: Path) -> None:
    """What cannot be read is an error that the command line turns into its exit code."""
    with pytest.raises(DataError, match="no such file"):
        run("check", tmp_path / "nope.npz")
    with pytest.raises(DataError, match="no such folder"):
        run("import", tmp_path / "nope", "-o", tmp_path / "a.npz")
