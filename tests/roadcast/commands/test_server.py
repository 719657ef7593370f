"""`roadcast server` and `roadcast release` as a user types them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from broker_server.brokers import Broker
from broker_server.config import RoundsConfig, ServerConfig
from edge_models.tasks import load_task
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError
from edge_protocol.ids import TaskId
from edge_protocol.transport.memory import MemoryBroker
from edge_protocol.trust import commissioned
from roadcast.cli import app
from tests.fakes.brokers import mosquitto_broker
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_artifacts, write_packs
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, class_votes, in_memory

__all__ = ["mosquitto_broker"]


def call(*words: str) -> str:
    """Run a command that succeeds; return what it printed."""
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """Packs and a configuration file beside them."""
    write_packs(tmp_path)
    made = centre_config(tmp_path, rounds=RoundsConfig(limit=0, quorum=1, wait_for=1))
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(made)))
    return made


def push(folder: Path) -> Any:
    """Push a release of random numbers, which could answer no golden input."""
    write_artifacts(folder / "mine", load_task("vehicle"))
    words = ["-c", str(folder / "server.yaml"), "--task", "vehicle", "--no-check", "--json"]
    return json.loads(call("release", "push", str(folder / "mine"), *words))


def test_a_push_that_does_not_answer_its_golden_inputs_is_refused(config: ServerConfig, tmp_path: Path) -> None:
    """Files that no runner can load are not signed, a failed check; files that answer as they should are."""
    write_artifacts(tmp_path / "mine", load_task("vehicle"))
    words = ["-c", str(tmp_path / "server.yaml"), "--task", "vehicle", "--json"]
    with pytest.raises(CheckFailedError, match="mine"):
        call("release", "push", str(tmp_path / "mine"), *words)
    assert not (Path(config.state_dir) / "releases").exists()
    call("export", "build", "vehicle", "--tier", "nano", "-o", str(tmp_path / "good" / "nano"))
    pushed = json.loads(call("release", "push", str(tmp_path / "good"), *words))
    assert [artifact["tier"] for artifact in pushed["artifacts"]] == ["nano"]


def test_check_counts_the_samples_of_every_pack(config: ServerConfig, tmp_path: Path) -> None:
    """Each pack is read as its task, and its samples counted."""
    rows = json.loads(call("server", "check", "-c", str(tmp_path / "server.yaml"), "--json"))
    counted = {"task": "vehicle", "samples": 60, "warning": ""}
    assert rows == [counted | {"pack": pack} for pack in ("anchors", "proxies", "validation")]
    assert "validation" in call("server", "check", "-c", str(tmp_path / "server.yaml"))
    assert config.fleet == "sim"


def test_check_ends_without_keys_as_run_does(config: ServerConfig, tmp_path: Path) -> None:
    """What the packs hold is told first, then that nothing can be signed."""
    other = msgspec.structs.replace(config, state_dir=str(tmp_path / "fresh"), keys_dir=str(tmp_path / "none"))
    (tmp_path / "keyless.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(other)))
    for command in ("check", "run"):
        result = CliRunner().invoke(app, ["server", command, "-c", str(tmp_path / "keyless.yaml")])
        assert isinstance(result.exception, NotReadyError)
        assert "roadcast keys init" in str(result.exception)
        assert ("validation" in result.stdout) is (command == "check")


def test_a_pushed_release_is_listed_and_shown(config: ServerConfig, tmp_path: Path) -> None:
    """Push, list and show agree on counter, signature and files."""
    pushed = push(tmp_path)
    assert (pushed["counter"], pushed["round"], len(pushed["artifacts"])) == (1, None, 3)
    listed = json.loads(call("release", "list", "--state-dir", config.state_dir, "--json"))
    assert [(r["task"], r["counter"]) for r in listed] == [("vehicle", 1)]
    assert "pushed" in call("release", "list", "--state-dir", config.state_dir)
    shown = json.loads(call("release", "show", "vehicle", "1", "--state-dir", config.state_dir, "--json"))
    assert shown == pushed
    weights = pushed["artifacts"][0]["files"]["weights"]["sha256"]
    assert weights in call("release", "show", "vehicle", "1", "--state-dir", config.state_dir)


def test_a_release_is_written_as_a_factory_model(config: ServerConfig, tmp_path: Path) -> None:
    """With the files of every tier or of one; a folder that holds one is left alone, and so is an unknown number."""
    push(tmp_path)
    words = ["--state-dir", config.state_dir, "--task", "vehicle", "--json"]
    made = json.loads(call("release", "factory", str(tmp_path / "all"), *words))
    assert made == {"task": "vehicle", "release": 1, "folder": str(tmp_path / "all")}
    call("release", "factory", str(tmp_path / "one"), *words, "--tier", "nano", "--counter", "1")
    held = [len(list((tmp_path / folder).glob("blobs/*/data"))) for folder in ("all", "one")]
    assert held[1] == 3 < held[0]
    assert json.loads((tmp_path / "one" / "vehicle" / "current.json").read_bytes())["release"] == 1
    for wrong, error in (
        (["--tier", "huge"], "no tier 'huge'"),
        (["--counter", "9"], "no such release"),
        ([], "holds a factory model"),
    ):
        with pytest.raises((ConfigError, NotReadyError), match=error):
            call("release", "factory", str(tmp_path / "one"), *words, *wrong)


def test_what_is_not_there_is_said(config: ServerConfig, tmp_path: Path) -> None:
    """No database, no such release, no such task: each error says what to do."""
    with pytest.raises(NotReadyError, match="start the server once"):
        call("server", "status", "--state-dir", str(tmp_path / "nowhere"))
    push(tmp_path)
    with pytest.raises(NotReadyError, match="roadcast release list"):
        call("release", "show", "vehicle", "7", "--state-dir", config.state_dir)
    with pytest.raises(ConfigError, match="there is vehicle"):
        call("release", "push", str(tmp_path), "-c", str(tmp_path / "server.yaml"), "--task", "speed")


def test_status_shows_rounds_releases_and_devices(config: ServerConfig, tmp_path: Path) -> None:
    """After a round the state folder tells who runs what."""
    config = msgspec.structs.replace(
        config,
        tasks={
            "vehicle": msgspec.structs.replace(
                config.tasks["vehicle"], rounds=RoundsConfig(limit=1, quorum=2, wait_for=2, pause_s=0)
            )
        },
    )
    clock, broker = FakeClock(), MemoryBroker()
    truth = write_packs(tmp_path)["proxies"].targets
    server = make_server(config, broker, clock, scripted_distiller([0.4, 0.5]))
    try:
        server.start()
        spec = load_task("vehicle")
        fleet = FleetSimulator(in_memory(broker), spec, clock, 2, knowledge=lambda *_: class_votes(truth, 6))
        fleet.start()
        while not all(device.running == 2 for device in fleet.devices):
            if not server.step() + fleet.step():
                clock.advance(0.5)
        server.step()
    finally:
        server.close()
    found = json.loads(call("server", "status", "--state-dir", config.state_dir, "--json"))
    rounds = found["tasks"][TaskId("vehicle")]["rounds"]
    assert [(r["number"], r["state"], r["reports"]) for r in rounds] == [(0, "released", 0), (1, "released", 2)]
    assert [d["tasks"]["vehicle"]["release"] for d in found["devices"]] == [2, 2]
    table = call("server", "status", "--state-dir", config.state_dir)
    assert "dev-0" in table
    assert "committed" in table


@pytest.mark.broker
def test_run_with_a_broker_of_its_own(config: ServerConfig, tmp_path: Path, mosquitto_broker: Broker) -> None:
    """One command starts broker and server; a signal ends both."""
    port = mosquitto_broker.port
    mosquitto_broker.stop()
    push(tmp_path)
    own = msgspec.structs.replace(config, broker=msgspec.structs.replace(config.broker, port=port))
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(own)))
    command = [sys.executable, "-m", "roadcast", "server", "run", "-c", str(tmp_path / "server.yaml")]
    with subprocess.Popen(
        [*command, "--with-broker", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdout is not None
        begun = run.stdout.read(1)
        run.send_signal(signal.SIGINT)
        said = json.loads(begun + run.stdout.read())
        assert run.wait(timeout=60) == 0
    assert said["broker"] == f"127.0.0.1:{port}"
    commissioned(Path(said["trusted_root"]).read_bytes())


def test_schema_names_every_key_of_the_configuration() -> None:
    """`roadcast server schema` is what an editor needs to complete the YAML."""
    found = json.loads(call("server", "schema"))
    assert set(found["$defs"]["ServerConfig"]["properties"]) == set(ServerConfig.__struct_fields__)
