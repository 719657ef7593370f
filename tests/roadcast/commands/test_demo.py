"""`roadcast demo`: exit codes, report, work folder."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_protocol.errors import CheckFailedError, DataError, StoreError
from roadcast.cli import app
from roadcast.commands import demo
from roadcast.demo.outcome import Outcome
from tests.fakes import demo_outcome as fake


@pytest.fixture(autouse=True)
def handlers_stay() -> Iterator[None]:
    """The command sets signal handlers of its process; give ours back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _after(monkeypatch: pytest.MonkeyPatch, outcome: Outcome) -> list[Path]:
    """Let the command run as if a demo had just ended with `outcome`; return the work folders that it used."""
    used: list[Path] = []

    def ran(rounds: int, data: Path | None, work: Path, seed: int) -> Outcome:
        work.mkdir(parents=True, exist_ok=True)
        used.append(work)
        return outcome

    monkeypatch.setattr(demo, "_run", ran)
    return used


def test_a_good_demo_leaves_with_0_and_a_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """JSON on stdout, the report where asked, and the temporary work folder gone."""
    used = _after(monkeypatch, fake.good())
    report = tmp_path / "r.html"
    result = CliRunner().invoke(app, ["demo", "--json", "--report", str(report)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rounds"] == 1
    assert "verdict good" in report.read_text(encoding="utf-8")
    assert not used[0].exists()


@pytest.mark.parametrize("option", ["--keep", "--work-dir"])
def test_the_work_folder_is_kept_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, option: str) -> None:
    """--keep keeps the temporary folder, and a named one always stays."""
    used = _after(monkeypatch, fake.good())
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path / prefix))
    extra = [option, str(tmp_path / "work")] if option == "--work-dir" else [option]
    assert CliRunner().invoke(app, ["demo", "--report", str(tmp_path / "r.html"), *extra]).exit_code == 0
    assert used[0].exists()


def test_a_demo_that_did_not_learn_fails_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 3, the reason, and where report and logs are."""
    used = _after(monkeypatch, fake.good(reasons=["vehicle: no release was made"]))
    result = CliRunner().invoke(app, ["demo", "--report", str(tmp_path / "r.html"), "--work-dir", str(tmp_path / "w")])
    assert isinstance(result.exception, CheckFailedError)
    assert result.exception.exit_code == 3
    assert "vehicle: no release was made" in str(result.exception)
    assert str(used[0] / "logs") in str(result.exception)


@pytest.mark.parametrize("option", ["--work-dir", "--report"])
def test_a_folder_that_refuses_is_told_before_anything_starts(tmp_path: Path, option: str) -> None:
    """Not after the minutes that a demo takes."""
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["demo", option, str(tmp_path / "file" / "in")])
    assert isinstance(result.exception, StoreError)
    assert option in str(result.exception)


def test_missing_data_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    """A folder that was named and is not there is told at once."""
    result = CliRunner().invoke(app, ["demo", "--data", str(tmp_path / "none"), "--work-dir", str(tmp_path / "w")])
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "w" / "logs").exists()


def test_no_round_is_a_usage_error() -> None:
    """A demo needs a round."""
    assert CliRunner().invoke(app, ["demo", "--rounds", "0"]).exit_code == 2


def test_a_signal_leaves_by_an_exception() -> None:
    """So that every `with` on the way ends what it began."""
    with pytest.raises(SystemExit) as caught:
        demo._leave(signal.SIGTERM, None)
    assert caught.value.code == 143
