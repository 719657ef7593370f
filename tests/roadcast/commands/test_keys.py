"""`roadcast keys` as a user types it: a fleet whose root and targets lie in a safe."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from broker_server.config import RoundsConfig, ServerConfig
from broker_server.key_setup import ready_roles
from edge_models.tasks import load_task
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError
from edge_protocol.trust import commissioned
from roadcast.cli import app
from tests.fakes.centre import centre_config, write_artifacts


def call(*words: object) -> Any:
    """Run a command that succeeds; return what it printed."""
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A server's configuration, and a passphrase; no key yet."""
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    for folder in (config.keys_dir, config.state_dir):
        shutil.rmtree(folder)
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "passphrase").chmod(0o600)
    config = msgspec.structs.replace(config, key_passphrase_file=str(tmp_path / "passphrase"))
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    return tmp_path


def config_of(place: Path) -> ServerConfig:
    """The server's configuration."""
    return msgspec.convert(yaml.safe_load((place / "server.yaml").read_text()), ServerConfig)


def options(place: Path, *safes: str) -> list[object]:
    """Configuration, safe and passphrase."""
    more = [word for safe in safes[1:] for word in ("--keys", place / safe)]
    return ["-c", place / "server.yaml", "--safe", place / safes[0], "--passphrase-file", place / "passphrase", *more]


def rows(found: list[dict[str, Any]]) -> dict[str, tuple[int, int, list[bool]]]:
    """Role → version, threshold, which keys are here."""
    return {row["role"]: (row["version"], row["threshold"], list(row["keys"].values())) for row in found}


def test_the_life_of_a_fleet_s_keys(place: Path) -> None:
    """Made, with root and targets elsewhere; looked at without them; rotated with them; the server needs them never."""
    config = config_of(place)
    with pytest.raises(NotReadyError, match="roadcast keys init"):
        ready_roles(config)
    said = call("keys", "init", *options(place, "safe"), "--root-keys", 3, "--threshold", 2)
    commissioned(Path(said["trusted_root"]).read_bytes())
    assert rows(call("keys", "status", "-c", place / "server.yaml")) == {
        "root": (1, 2, [False] * 3),
        "targets": (2, 1, [False]),
        "snapshot": (2, 1, [True]),
        "timestamp": (2, 1, [True]),
        "task-vehicle": (1, 1, [True]),
    }
    ready_roles(config)
    assert all(b"ENCRYPTED" in path.read_bytes() for path in place.rglob("*.pem"))
    with pytest.raises(NotReadyError, match="0/2 keys"):
        call("keys", "rotate", "timestamp", "-c", place / "server.yaml")
    call("keys", "rotate", "timestamp", *options(place, "safe"))
    call("keys", "rotate", "vehicle", *options(place, "safe"))
    found = rows(call("keys", "rotate", "root", *options(place, "new", "safe"), "--count", 2, "--threshold", 2))
    assert (found["root"], found["task-vehicle"]) == ((3, 2, [True, True]), (2, 1, [True]))
    assert rows(call("keys", "rotate", "root", *options(place, "new"), "--same"))["root"][0] == 4
    assert [path.name for path in sorted((place / "server/tuf").glob("*.root.json"))] == [
        f"{version}.root.json" for version in (1, 2, 3, 4)
    ]


def test_a_release_is_signed_by_a_key_from_a_safe(place: Path) -> None:
    """Where the task's key is not on the server, a push takes the folder that has it."""
    call("keys", "init", *options(place, "safe"))
    keys = place / "keys"
    (pem,) = keys.glob("task-vehicle-*.pem")
    (place / "stick").mkdir()
    shutil.move(pem, place / "stick" / pem.name)
    shutil.copy(keys / "keys.json", place / "stick" / "keys.json")
    write_artifacts(place / "mine", load_task("vehicle"))
    words = ["release", "push", place / "mine", "-c", place / "server.yaml", "--task", "vehicle", "--no-check"]
    with pytest.raises(NotReadyError, match="0/1 keys"):
        call(*words)
    pushed = call(*words, "--keys", place / "stick", "--passphrase-file", place / "passphrase")
    assert (pushed["counter"], len(pushed["manifest"])) == (1, 64)


def test_who_changed_keys_and_pushed_stands_in_the_audit_log(place: Path) -> None:
    """Once a server has run, or something was pushed; who it was is not what the environment says."""
    call("keys", "init", *options(place, "safe"))
    write_artifacts(place / "mine", load_task("vehicle"))
    call("release", "push", place / "mine", "-c", place / "server.yaml", "--task", "vehicle", "--no-check")
    call("keys", "rotate", "vehicle", *options(place, "safe"))
    call("keys", "rotate", "root", *options(place, "safe"), "--same")
    entries = call("rollout", "audit", "--state-dir", place / "server")["entries"]
    assert {entry["who"] for entry in entries} == {pwd.getpwuid(os.getuid()).pw_name}
    assert [(entry["what"], entry["release"]) for entry in entries] == [("release", 1), ("keys", 0), ("keys", 0)]
    assert entries[1]["detail"].startswith("vehicle signed by 1 of ")


def test_init_again_signs_only_for_new_tasks(place: Path) -> None:
    """Another task in the configuration is delegated by targets; all else stays."""
    first = call("keys", "init", *options(place, "safe"))
    config = config_of(place)
    tasks = {**config.tasks, "clinic": msgspec.structs.replace(config.tasks["vehicle"], task="clinic")}
    config = msgspec.structs.replace(config, tasks=tasks)
    (place / "server.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    with pytest.raises(NotReadyError, match="task-clinic"):
        ready_roles(config)
    again = call("keys", "init", *options(place, "safe"))
    assert again["trusted_root"] == first["trusted_root"]
    assert set(rows(again["roles"])) == {"root", "targets", "snapshot", "timestamp", "task-vehicle", "task-clinic"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["init", "--threshold", "2"], "there will be 1 root keys"),
        (["init", "--safe", "{place}/safe"], "give --passphrase-file"),
        (["rotate", "trucks", "--safe", "{place}/safe", "--plain"], "'trucks' is no role"),
        (["rotate", "timestamp", "--same"], "--same is for root"),
    ],
)
def test_what_cannot_be_is_refused(place: Path, words: list[str], says: str) -> None:
    """A ConfigError that says what to write instead; no key was made."""
    with pytest.raises(ConfigError, match=says):
        call("keys", *(word.format(place=place) for word in words), "-c", place / "server.yaml")
    assert not list(place.rglob("*.pem"))


def test_status_fails_when_a_role_has_expired(place: Path) -> None:
    """Exit code 3, and which; before there is a root it says how to make one."""
    with pytest.raises(NotReadyError, match="roadcast keys init"):
        call("keys", "status", "-c", place / "server.yaml")
    config = yaml.safe_load((place / "server.yaml").read_text())
    config["trust"]["timestamp_days"] = 1e-9
    (place / "server.yaml").write_text(yaml.safe_dump(config))
    call("keys", "init", *options(place, "safe"))
    with pytest.raises(CheckFailedError, match="devices take no release: timestamp: version 2 expired"):
        call("keys", "status", "-c", place / "server.yaml")
    with pytest.raises(NotReadyError, match="no keys here"):
        call("keys", "status", "-c", place / "server.yaml", "--keys", place / "nowhere", "--plain")
    text = CliRunner().invoke(app, ["keys", "status", "-c", str(place / "server.yaml")]).output
    assert "(elsewhere)" in text
