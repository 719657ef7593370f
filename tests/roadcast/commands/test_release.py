"""`roadcast release export-blobs`, `again` and `list` as a user types them; the others are tried in test_server."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from broker_server.config import RoundsConfig, ServerConfig
from broker_server.effects import SaveRollout
from broker_server.setup import push_release
from broker_server.status import open_database, release_details
from edge_client.mirror import Mirror
from edge_models.tasks import load_task
from edge_protocol.errors import ArtifactError, ConfigError, DigestError, NotReadyError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import decode_manifest
from roadcast.cli import app
from roadcast.commands.server import _headline
from tests.fakes.centre import centre_config, write_artifacts, write_packs
from tests.fakes.range_server import RangeServer
from tests.fakes.waiting import wait_for


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """A server to which one release was pushed."""
    write_packs(tmp_path)
    write_artifacts(tmp_path / "mine", load_task("vehicle"))
    made = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    push_release(made, "vehicle", tmp_path / "mine", notes="", now=time.time())
    return made


def call(*words: str) -> Any:
    """Run a command that succeeds; return its JSON."""
    result = CliRunner().invoke(app, [*words, "--json"])
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_earlier_release_comes_again_with_a_key_from_a_safe(config: ServerConfig, tmp_path: Path) -> None:
    """Where a rollback cannot sign, or goes not far enough: same files, the next number, which may be set higher."""
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    safe, server = tmp_path / "safe", ("-c", str(tmp_path / "server.yaml"))
    safe.mkdir()
    keys = Path(config.keys_dir)
    shutil.copy(keys / "keys.json", safe)
    for key in keys.glob("task-vehicle*.pem"):
        key.rename(safe / key.name)
    with pytest.raises(NotReadyError, match="--keys"):
        call("release", "again", "vehicle", "1", *server)
    made = call("release", "again", "vehicle", "1", *server, "--keys", str(safe), "--above", "7")
    assert (made["counter"], made["notes"]) == (8, "release 1 again")
    first = call("release", "show", "vehicle", "1", "--state-dir", config.state_dir)
    assert made["artifacts"] == first["artifacts"]
    with pytest.raises(ArtifactError, match="no release 5"):
        call("release", "again", "vehicle", "5", *server)
    with pytest.raises(ConfigError, match="there is vehicle"):
        call("release", "again", "speed", "1", *server)


def test_where_each_release_stands_is_listed_and_boards_get_the_fleets(config: ServerConfig, tmp_path: Path) -> None:
    """Not an aborted one, nor one that nobody has yet, however new it is."""
    for counter, state in ((2, "aborted"), (3, "draft")):
        push_release(config, "vehicle", tmp_path / "mine", notes="", now=time.time(), held_by="ann")
        database = open_database(Path(config.state_dir))
        draft = database.draft(TaskId("vehicle"), counter)
        assert draft is not None
        database.apply([SaveRollout(draft.changed(state=state))])
        database.close()
    where = ("--state-dir", config.state_dir)
    assert [r["standing"] for r in call("release", "list", *where)] == ["fleet", "aborted", "draft"]
    assert call("release", "factory", str(tmp_path / "model"), *where, "--task", "vehicle")["release"] == 1
    tasks = call("server", "status", *where)["tasks"]
    assert _headline("vehicle", tasks["vehicle"]) == "vehicle: release 1, 2 aborted, 3 draft"


def export(config: ServerConfig, folder: Path, *more: str) -> Any:
    """Run the command."""
    words = ["release", "export-blobs", str(folder), "--state-dir", config.state_dir, "--json", *more]
    result = CliRunner().invoke(app, words)
    if result.exit_code and isinstance(result.exception, Exception):
        raise result.exception
    return json.loads(result.stdout)


def test_what_does_not_exist_is_named(config: ServerConfig, tmp_path: Path) -> None:
    """A folder without tiers is exit 4, a number that no release can have is a wrong command line."""
    (tmp_path / "server.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    push = ["release", "push", str(tmp_path / "nowhere"), "-c", str(tmp_path / "server.yaml"), "--task", "vehicle"]
    pushed = CliRunner().invoke(app, push)
    assert isinstance(pushed.exception, ArtifactError)
    assert (pushed.exception.exit_code, "no folder named after a tier" in str(pushed.exception)) == (4, True)
    shown = CliRunner().invoke(app, ["release", "show", "vehicle", "9" * 20, "--state-dir", config.state_dir])
    assert (shown.exit_code, shown.exception.__class__) == (2, SystemExit)


def test_every_file_of_a_release_is_copied_once_and_what_nothing_names_goes(
    config: ServerConfig, tmp_path: Path
) -> None:
    """A damaged copy is made anew; files that are no blobs are left alone."""
    folder = tmp_path / "www"
    first = export(config, folder)
    names = {path.name for path in folder.iterdir()}
    database = open_database(Path(config.state_dir))
    details = release_details(database.releases()[0])
    database.close()
    assert names == {file["sha256"] for artifact in details["artifacts"] for file in artifact["files"].values()}
    assert first["written"] == len(names)
    (folder / "index.html").write_text("mine")
    (folder / ("0" * 64)).write_bytes(b"old")
    damaged = folder / min(names)
    damaged.write_bytes(b"torn")
    assert {**export(config, folder), "bytes": 0} == {
        "written": 1,
        "kept": len(names) - 1,
        "deleted": 0,
        "bytes": 0,
    }
    assert export(config, folder, "--prune")["deleted"] == 1
    assert {path.name for path in folder.iterdir()} == names | {"index.html"}


def test_what_is_damaged_at_the_server_is_said_and_not_copied(config: ServerConfig, tmp_path: Path) -> None:
    """A mirror holds nothing that its devices would refuse."""
    blob = min((Path(config.state_dir) / "blobs").iterdir())
    blob.write_bytes(bytes(len(blob.read_bytes())))
    with pytest.raises(DigestError, match="damaged"):
        export(config, tmp_path / "www")
    assert not (tmp_path / "www" / blob.name).exists()


def test_a_device_reads_what_was_exported(config: ServerConfig, tmp_path: Path) -> None:
    """Layout and hashes are those that a mirror is asked for."""
    export(config, tmp_path / "www")
    database = open_database(Path(config.state_dir))
    (ref, *_) = decode_manifest(database.releases()[0].manifest).blobs
    database.close()
    got: dict[int, bytes] = {}
    with RangeServer() as server:
        server.files = {path.name: path.read_bytes() for path in (tmp_path / "www").iterdir()}
        mirror = Mirror(server.base, lambda _, index, data: got.update({index: data}))
        mirror.ask(ref, range(ref.chunks))
        wait_for(lambda: len(got) == ref.chunks, "blob")
        mirror.close()
    assert b"".join(got[index] for index in sorted(got)) == (tmp_path / "www" / ref.sha256).read_bytes()
