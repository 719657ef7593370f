"""`roadcast bench run` where the model is not measured in this process: over SSH."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from devices.latency.result import read_result
from devices.latency.soak import Soak
from edge_protocol.errors import ExitCode
from tests.fakes.sshd import SKIP_REASON, Sshd
from tests.roadcast.commands.test_bench import SHORT, call, model

__all__ = ["model"]  # the fixture


@pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)
def test_a_run_on_a_target_is_shown_and_written_here(model: Path, tmp_path: Path) -> None:
    """By a name of the site's inventory with its fingerprint; a name that is not in it, and no site, are errors."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={Path(__file__).parents[3]} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with Sshd(tmp_path / "sshd") as sshd:
        target = sshd.target(fingerprint=sshd.fingerprint)
        inventory = {"cam-1": {name: getattr(target, name) for name in ("host", "port", "user", "fingerprint")}}
        (tmp_path / "site.yaml").write_text(yaml.safe_dump({"agent": {"device": "cam-1"}, "ssh": inventory}))
        login = ("--identity", tmp_path / "sshd/user_key", "--known-hosts", tmp_path / "none")
        command = ("run", model, *SHORT, *login, "--python", python, "--site", tmp_path / "site.yaml")
        assert call(*command, "--ssh", "cam-1", "--json", tmp_path / "r.json") == ExitCode.OK
        assert read_result(tmp_path / "r.json").latency.count == 30
        address = f"{target.user}@127.0.0.1:{target.port}"
        assert call("run", model, *SHORT, *login, "--ssh", address) == ExitCode.NOT_READY
    assert call("run", model, "--ssh", "a b") == ExitCode.CONFIG
    assert call("run", model, "--ssh", "h", "--site", tmp_path / "no.yaml") == ExitCode.CONFIG


def test_a_soak_is_shown_and_its_verdict_is_an_exit_code(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A timeline, a picture and a document; a duration without a unit is a wrong configuration."""
    files = ("--json", tmp_path / "s.json", "--plot", tmp_path / "s.svg")
    code = call("run", model, "--warm-up", 0, "--soak", "1s", "--power", *files)
    shown = capsys.readouterr()
    assert shown.out.startswith("seconds\tqueries\tp50 ms")
    found = msgspec.json.decode((tmp_path / "s.json").read_bytes(), type=Soak)
    assert code == (ExitCode.CHECK_FAILED if found.findings else ExitCode.OK)
    assert all(text in shown.err.replace("\n", " ") for text in found.findings)
    assert (tmp_path / "s.svg").read_text().startswith("<svg")
    assert call("run", model, "--soak", "90") == ExitCode.CONFIG
    assert call("report", tmp_path / "s.json", "-o", tmp_path / "r.html") == ExitCode.NOT_READY
