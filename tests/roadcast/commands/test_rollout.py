"""`roadcast rollout` as an operator types it, beside a server that runs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from broker_server.config import RoundsConfig
from broker_server.server import Server
from broker_server.setup import push_release
from broker_server.store.database import Database
from edge_models.tasks import load_task
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError, TransportError
from edge_protocol.transport.memory import MemoryBroker
from roadcast.cli import app
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_artifacts, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, in_memory


def call(*words: str) -> str:
    """Run a command that succeeds; return what it printed."""
    result = CliRunner().invoke(app, ["rollout", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


class Running:
    """A server and four devices in a thread; their time flies."""

    def __init__(self, folder: Path) -> None:
        write_packs(folder)
        clock, broker = FakeClock(), MemoryBroker()
        config = centre_config(folder, rounds=RoundsConfig(limit=0))
        self.state_dir = config.state_dir
        write_artifacts(folder / "mine", load_task("vehicle"))
        push_release(config, "vehicle", folder / "mine", notes="", now=clock())
        push_release(config, "vehicle", folder / "mine", notes="", now=clock(), held_by="ann")
        self._server: Server = make_server(config, broker, clock, scripted_distiller([]))
        self._fleet = FleetSimulator(in_memory(broker), load_task("vehicle"), clock, 4, knowledge=lambda *_: None)
        self._clock, self._over = clock, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._server.start()
        self._fleet.start()
        while not self._over.is_set():
            if not self._server.step() + self._fleet.step():
                self._clock.advance(0.5)
                time.sleep(0.002)

    def close(self) -> None:
        """End the thread and the server."""
        self._over.set()
        self._thread.join()
        self._server.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A server with release 2 held back."""
    made = Running(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_a_rollout_from_start_to_the_log(running: Running) -> None:
    """Start, pause, resume, watch to its end, roll back; status and log tell all of it."""
    where = ("--state-dir", running.state_dir)
    quick = ("--canary", "25%", "--waves", "50%,100%", "--soak", "20s", "--max-failures", "1", "--wait", "30")
    begun = json.loads(call("start", "vehicle/2", *where, *quick, "--max-latency-p95", "40ms", "--json"))
    assert (begun["plan"]["canary"], begun["plan"]["waves"], begun["plan"]["soak_s"]) == (0.25, [0.5, 1.0], 20)
    assert begun["plan"]["max_latency_p95_ms"] == 40
    assert "vehicle/2 paused" in call("pause", "vehicle/2", *where, "--wait", "30")
    assert call("resume", "vehicle/2", *where, "--wait", "30").startswith("vehicle/2 ")
    seen = call("watch", "vehicle/2", *where, "--every", "0.1").splitlines()
    assert "vehicle/2 complete" in seen[-1]
    assert "4 committed" in seen[-1]
    found = json.loads(call("status", "vehicle/2", *where, "--json"))
    assert found["counts"] == {"absent": 0, "waiting": 0, "committed": 4, "failed": 0}
    assert call("status", "vehicle/2", *where).count("committed") == 4
    with pytest.raises(CheckFailedError, match="does not take 'abort'"):
        call("abort", "vehicle/2", *where, "--wait", "30")
    assert "aborted" in call("rollback", "vehicle/2", *where, "--wait", "30")
    log = json.loads(call("audit", *where, "--json"))
    told = [entry["what"] for entry in log["entries"]]
    assert told[:4] == ["draft", "start", "wave-0", "pause"]
    assert told[-1] in {"rollback", "take-back"}
    assert "unbroken" in call("audit", *where) or "rollback" in call("audit", *where)


def test_a_log_that_somebody_changed_is_a_failed_check(running: Running) -> None:
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


def test_what_cannot_be_done_is_said(running: Running, tmp_path: Path) -> None:
    """A name that is none, a release without a rollout, a plan out of bounds, and a server that does not answer."""
    where = ("--state-dir", running.state_dir)
    with pytest.raises(ConfigError, match="TASK/NUMBER"):
        call("pause", "vehicle", *where)
    with pytest.raises(NotReadyError, match="--hold"):
        call("status", "vehicle/1", *where)
    with pytest.raises(CheckFailedError, match="has no rollout"):
        call("pause", "vehicle/1", *where, "--wait", "30")
    with pytest.raises(ConfigError, match="rollout"):
        call("start", "vehicle/2", *where, "--canary", "500%")
    with pytest.raises(ConfigError, match="is no duration"):
        call("start", "vehicle/2", *where, "--soak", "thirty")
    running.close()
    with pytest.raises(TransportError, match="no server has taken it"):
        call("start", "vehicle/2", *where, "--wait", "0.1")
    running._thread = threading.Thread(target=lambda: None)
    running._thread.start()
