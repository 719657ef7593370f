"""`roadcast rollout` as an operator types it, beside a server that runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from broker_server.store.database import Database
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError, TransportError
from roadcast.cli import app
from tests.fakes.running_centre import RunningCentre


def call(*words: str) -> str:
    """Run a command that succeeds; return what it printed."""
    result = CliRunner().invoke(app, ["rollout", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningCentre]:
    """A server with release 2 held back."""
    made = RunningCentre(tmp_path, 4, held=True)
    try:
        yield made
    finally:
        made.close()


def test_a_rollout_from_start_to_the_log(running: RunningCentre) -> None:
    """Start, pause, resume, watch to its end, roll back; status and log tell all of it."""
    where = ("--state-dir", running.state_dir)
    quick = ("--canary", "25%", "--waves", "50%,100%", "--soak", "200s", "--max-failures", "1", "--wait", "30")
    begun = json.loads(call("start", "vehicle/2", *where, *quick, "--max-latency-p95", "40ms", "--json"))
    assert (begun["plan"]["canary"], begun["plan"]["waves"], begun["plan"]["soak_s"]) == (0.25, [0.5, 1.0], 200)
    assert begun["plan"]["max_latency_p95_ms"] == 40
    assert "vehicle/2 paused" in call("pause", "vehicle/2", *where, "--wait", "30")
    assert call("resume", "vehicle/2", *where, "--wait", "30").startswith("vehicle/2 ")
    seen = call("watch", "vehicle/2", *where, "--every", "0.1").splitlines()
    assert "vehicle/2 complete" in seen[-1]
    assert "4 committed" in seen[-1]
    found = json.loads(call("status", "vehicle/2", *where, "--json"))
    assert found["counts"] == {"absent": 0, "waiting": 0, "measuring": 0, "committed": 4, "failed": 0}
    assert call("status", "vehicle/2", *where).count("\tcommitted\t") == 4
    with pytest.raises(CheckFailedError, match="is complete: it takes rollback"):
        call("abort", "vehicle/2", *where, "--wait", "30")
    assert "aborted" in call("rollback", "vehicle/2", *where, "--wait", "30")
    log = json.loads(call("audit", *where, "--json"))
    told = [entry["what"] for entry in log["entries"]]
    assert told[:3] == ["release", "draft", "start"]
    assert told.index("wave-0") < told.index("complete")
    assert told.index("pause") < told.index("resume") < told.index("complete")
    assert told[-1] in {"rollback", "take-back", "release"}
    assert [line.split("\t")[3] for line in call("audit", *where).splitlines()[2:]] == told


def test_a_log_that_somebody_changed_is_a_failed_check(running: RunningCentre) -> None:
    """Exit code 3, and the entry is named."""
    where = ("--state-dir", running.state_dir)
    call("start", "vehicle/2", *where, "--wait", "30")
    database = Database(Path(running.state_dir) / "server.db")
    with database.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_no_change"))
        connection.execute(text("UPDATE audit SET entry = json_set(entry, '$.who', 'nobody') WHERE number = 1"))
    database.close()
    with pytest.raises(CheckFailedError, match="entry 1"):
        call("audit", *where)


def test_what_cannot_be_done_is_said(running: RunningCentre, tmp_path: Path) -> None:
    """A name that is none, a release without a rollout, a plan out of bounds, and a server that does not answer."""
    where = ("--state-dir", running.state_dir)
    for word in ("vehicle", "vehicle/\u00b2", "vehicle/0", "vehicle/" + "9" * 23, "vehicle/" + "9" * 5000):
        with pytest.raises(ConfigError, match="TASK/NUMBER"):
            call("status", word, *where)
    with pytest.raises(NotReadyError, match="--hold"):
        call("status", "vehicle/1", *where)
    with pytest.raises(CheckFailedError, match="is the fleet's and has no rollout"):
        call("pause", "vehicle/1", *where, "--wait", "30")
    with pytest.raises(ConfigError, match="rollout"):
        call("start", "vehicle/2", *where, "--canary", "500%")
    with pytest.raises(ConfigError, match="is no duration"):
        call("start", "vehicle/2", *where, "--soak", "thirty")
    with pytest.raises(ConfigError, match="such as 30s or 30m"):
        call("start", "vehicle/2", *where, "--soak", "30")
    running.close()
    with pytest.raises(TransportError, match="no server has taken it"):
        call("start", "vehicle/2", *where, "--wait", "0.1")
    with pytest.raises(ConfigError, match="TASK/NUMBER"):
        call("status", "vehicle/²", *where)
    running._thread = threading.Thread(target=lambda: None)
    running._thread.start()
