"""`roadcast bench run` where the model is not measured in this process: over SSH."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from broker_server.status import open_database, status
from devices.latency.result import read_result
from devices.latency.soak import Soak
from edge_protocol.errors import ExitCode
from edge_protocol.messages import Measured
from roadcast import exits
from roadcast.commands.server import app as server_app
from tests.fakes.running_centre import RunningCentre
from tests.fakes.sshd import SKIP_REASON, Sshd
from tests.fakes.waiting import wait_for
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
    """A timeline, a picture, a document that a report takes; a duration without a unit is a wrong configuration."""
    files = ("--json", tmp_path / "s.json", "--plot", tmp_path / "s.svg")
    code = call("run", model, "--warm-up", 0, "--soak", "1s", "--power", *files)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[1].startswith("seconds\tqueries\tp50 ms")
    found = msgspec.json.decode((tmp_path / "s.json").read_bytes(), type=Soak)
    assert code == (ExitCode.CHECK_FAILED if found.findings else ExitCode.OK)
    assert all(text in shown.err.replace("\n", " ") for text in found.findings)
    assert (tmp_path / "s.svg").read_text().startswith("<svg")
    assert call("run", model, "--soak", "90") == ExitCode.CONFIG
    assert call("report", tmp_path / "s.json", "-o", tmp_path / "r.html") == ExitCode.OK
    assert "Soak: model.onnx" in (tmp_path / "r.html").read_text()
    assert call("compare", tmp_path / "s.json", tmp_path / "s.json") == ExitCode.NOT_READY


class Centre(RunningCentre):
    """Three devices; one refuses to measure."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, 3)

    def measured(self, device: str, empty: Measured) -> Measured:
        """The same figures for all, or a reason."""
        if device == "dev-1":
            return msgspec.structs.replace(empty, reason="the device trains already; ask again later")
        values = {"p50_ms": 1.25, "p95_ms": 1.5}
        return msgspec.structs.replace(empty, ran="CPUExecutionProvider", queries=900, values=values)


def test_a_device_is_measured_through_the_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown, written, and seen in the server's status; a refusal, an unknown device and a wrong task are errors."""
    centre = Centre(tmp_path)
    asked = ("run", "--state-dir", centre.state_dir, "--device")
    try:
        wait_for(
            lambda: [d["tasks"]["vehicle"]["release"] for d in devices(centre.state_dir).values()] == [1] * 3,
            "release 1",
        )
        assert call(*asked, "dev-0", "--json", tmp_path / "m.json") == ExitCode.OK
        title, *lines = capsys.readouterr().out.splitlines()
        assert title == "dev-0"
        shown = dict(line.split("\t") for line in lines)
        assert (shown["release"], shown["ran"], shown["p95_ms"]) == ("vehicle/1", "CPUExecutionProvider", "1.5")
        assert json.loads((tmp_path / "m.json").read_bytes())["values"] == {"p50_ms": 1.25, "p95_ms": 1.5}
        for command in (("compare", tmp_path / "m.json"), ("report", "-o", tmp_path / "r.html")):
            assert call(*command, tmp_path / "m.json") == ExitCode.NOT_READY
            assert "what a device said of itself" in capsys.readouterr().err.replace("\n", " ")
        assert call(*asked, "dev-0") == ExitCode.OK, "a second measurement is told from the first"
        assert call(*asked, "dev-1") == ExitCode.CHECK_FAILED
        assert "trains already" in capsys.readouterr().err.replace("\n", " ")
        assert call(*asked, "dev-0", "--seconds", "31") == ExitCode.CONFIG
        assert call(*asked, "dev-0", "--task", "speed") == ExitCode.CONFIG
        assert call(*asked, "ghost") == ExitCode.CONFIG
        found = devices(centre.state_dir)
        assert found["dev-0"]["tasks"]["vehicle"]["measured"]["values"]["p95_ms"] == 1.5
        assert found["dev-2"]["tasks"]["vehicle"]["measured"] is None
        capsys.readouterr()
        assert exits.run(lambda: server_app(["status", "--state-dir", str(centre.state_dir)], prog_name="server")) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [row[-1] for row in rows if row[0].startswith("dev-")] == ["1.5", "-", "-"]
    finally:
        centre.close()
    assert call("run", "--device", "dev-0") == ExitCode.CONFIG
    assert call("run") == ExitCode.CONFIG


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("build/nano",), "MODEL"),
        (("--runner", "ort"), "--runner"),
        (("--scenario", "offline", "--queries", 5), "--scenario, --queries"),
        (("--plot", "p.svg", "--soak", "30m", "--power"), "--plot, --soak, --power"),
        (("--end-to-end", "--ssh", "host"), "--end-to-end, --ssh"),
    ],
)
def test_what_a_device_does_not_heed_is_refused(
    given: tuple[object, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It measures what it serves, as it serves it; even a default is refused where it was asked for."""
    assert call("run", *given, "--device", "cam-1", "--state-dir", tmp_path) == ExitCode.CONFIG
    assert f"leave out {named}" in capsys.readouterr().err.replace("\n", " ")


def test_what_only_a_device_heeds_is_refused_without_one(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server's folder and a task say nothing of a model that is measured here."""
    assert call("run", model, *SHORT, "--state-dir", "server", "--task", "vehicle") == ExitCode.CONFIG
    assert "--state-dir, --task: only with --device" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("given", [("--site", "site.yaml"), ("--python", "python3"), ("--identity", "key")])
def test_what_only_a_target_heeds_is_refused_without_one(
    given: tuple[str, ...], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who names a site, a Python or a key and no target would measure this machine for it."""
    assert call("run", model, *SHORT, *given) == ExitCode.CONFIG
    assert f"{given[0]}: only with --ssh" in capsys.readouterr().err.replace("\n", " ")


def devices(state_dir: str) -> dict[str, Any]:
    """What the server's folder says of each device."""
    database = open_database(Path(state_dir))
    try:
        return {device["device"]: device for device in status(database)["devices"]}
    finally:
        database.close()


def test_a_source_asks_for_the_whole_way(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By itself, and so does --publish; a bare file has none of a device's steps."""
    assert call("run", model, *SHORT, "--source", f"folder://{tmp_path}") == ExitCode.CONFIG
    assert "--end-to-end needs a folder" in capsys.readouterr().err.replace("\n", " ")
    assert call("run", model, *SHORT, "--publish", "memory") == ExitCode.CONFIG


def test_loadgen_issues_the_queries_where_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shown, written, its own trace kept and read; its files without it, or of a target, are errors."""
    logs = ("--loadgen-logs", tmp_path / "logs")
    assert call("run", model, *SHORT, "--driver", "loadgen", *logs, "--json", tmp_path / "r.json") == ExitCode.OK
    assert "queries issued by MLPerf LoadGen" in capsys.readouterr().out
    found = read_result(tmp_path / "r.json")
    assert set(found.stages) == {"loadgen", "infer"}
    assert call("trace", tmp_path / "logs/mlperf_log_trace.json", "--from", "loadgen", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["max_ms"] == pytest.approx(found.latency.max_ms, abs=1e-6)
    assert call("run", model, *SHORT, *logs) == ExitCode.CONFIG
    assert call("run", model, *SHORT, "--driver", "loadgen", *logs, "--ssh", "host") == ExitCode.CONFIG
