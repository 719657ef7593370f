"""`roadcast devices fit`: measured here or elsewhere, against budgets of the site or the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from devices.latency.result import Result, write_result
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.errors import ExitCode
from export import build_artifact
from export.folder import WEIGHTS, write_artifact
from roadcast import exits
from roadcast.commands.devices import app
from tests.fakes.latency import SUBJECT, result

SPEC = load_task("vehicle")
MS = 1_000_000


def call(*arguments: object) -> int:
    """Run a command as the command line does and return its exit code."""
    return exits.run(lambda: app([str(a) for a in arguments], prog_name="devices"))


def recorded(folder: Path, name: str, ms: int, **subject: str) -> Path:
    """A result of another board on disk."""
    told: Result = result([ms * MS] * 1000, subject=msgspec.structs.replace(SUBJECT, **subject))
    write_result(folder / name, told)
    return folder / name


@pytest.fixture
def results(tmp_path: Path) -> list[object]:
    """Options that name results of three students, the middle one in two precisions."""
    files = [
        recorded(tmp_path, "n.json", 2),
        recorded(tmp_path, "s.json", 20, model="vehicle small residual"),
        recorded(tmp_path, "s8.json", 10, model="vehicle small residual", precision="int8-cpu"),
        recorded(tmp_path, "b.json", 60, model="vehicle base mixer"),
    ]
    return [part for file in files for part in ("--results", file)]


def test_results_of_another_board_are_compared_and_one_chosen(
    results: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    """The table says why each was rejected, and what to write into the configuration."""
    assert call("fit", "vehicle", *results, "--max-latency-p95", "40ms") == ExitCode.OK
    shown = capsys.readouterr().out
    assert "p95 60 ms, at most 40" in shown
    assert "tier: small, precision: int8" in shown
    assert call("fit", "vehicle", *results, "--max-latency-p95", "40ms", "--json") == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert [(c["tier"], len(c["rejected"])) for c in found["candidates"]] == [
        ("nano", 0),
        ("small", 0),
        ("small", 0),
        ("base", 1),
    ]
    assert found["choice"]["precision"] == "int8-cpu"
    assert found["settings"] == {"tier": "small", "precision": "int8", "runner": "onnxruntime"}


def test_when_none_fits_the_table_is_shown_and_the_code_is_3(
    results: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Here nobody measured power."""
    assert call("fit", "vehicle", *results, "--max-power", "7W") == ExitCode.CHECK_FAILED
    said = capsys.readouterr()
    assert said.out.count("power not measured on this board") == 4
    assert "no way to serve 'vehicle' on a board fits" in said.err


def test_budgets_of_the_site_count_until_the_command_line_names_others(
    tmp_path: Path, results: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each by itself: the latency is the command line's, the memory the site's."""
    site: dict[str, Any] = {"agent": {}, "budgets": {"latency_p95_ms": 1, "memory_mb": 100}}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    fixed = ("fit", "vehicle", *results, "--site", tmp_path / "site.yaml")
    assert call(*fixed) == ExitCode.CHECK_FAILED
    capsys.readouterr()
    assert call(*fixed, "--max-latency-p95", "5ms", "--json") == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found["budgets"] == {"latency_p95_ms": 5.0, "memory_mb": 100.0, "power_w": None}
    assert found["choice"]["tier"] == "nano"
    site["budgets"] = {"latency_p95_ms": -1}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
    assert call(*fixed) == ExitCode.CONFIG


def test_what_cannot_be_compared_is_refused(tmp_path: Path, results: list[object]) -> None:
    """Both sources at once, a budget without a unit, two boards, no result, no exported student."""
    assert call("fit", "vehicle", *results, "--models", tmp_path) == ExitCode.CONFIG
    assert call("fit", "vehicle", *results, "--max-memory", "500") == ExitCode.CONFIG
    other = recorded(tmp_path, "other.json", 1, board="another board")
    assert call("fit", "vehicle", *results, "--results", other) == ExitCode.CONFIG
    (tmp_path / "broken.json").write_text("{}")
    assert call("fit", "vehicle", "--results", tmp_path / "broken.json") != ExitCode.OK
    assert call("fit", "vehicle", "--models", tmp_path) == ExitCode.NOT_READY


def test_exported_students_are_measured_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a process each; one whose files are damaged is rejected with the reason, and the others are compared."""
    x = np.random.default_rng(0).normal(size=(4, *SPEC.input.shape)).astype(np.float32)
    for tier in ("nano", "small"):
        built = build_artifact(SPEC, tier, build_student(SPEC, tier), x)  # type: ignore[arg-type]  # one of TIERS
        write_artifact(tmp_path / tier, built, SPEC, tier)  # type: ignore[arg-type]
    (tmp_path / "small" / WEIGHTS).write_bytes(b"damaged")
    assert (
        call("fit", "vehicle", "--models", tmp_path, "--seconds", 0.1, "--max-memory", "4GB", "--json") == ExitCode.OK
    )
    found = json.loads(capsys.readouterr().out)
    assert found["choice"]["tier"] == "nano"
    assert found["choice"]["latency_p95_ms"] > 0
    assert found["choice"]["memory_mb"] > 1
    damaged = next(c for c in found["candidates"] if c["tier"] == "small")
    assert damaged["rejected"][0].startswith("cannot be measured:")
    assert "cannot be read" in damaged["rejected"][0]
