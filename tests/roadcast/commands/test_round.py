"""`roadcast round` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from broker_server.effects import SaveRound
from broker_server.round_facts import find_round, manifest_of
from broker_server.round_manifest import encoded
from broker_server.status import open_database
from broker_server.store.blobs import BlobFolder
from edge_protocol.errors import CheckFailedError, NotReadyError
from roadcast.cli import app
from tests.fakes.round_state import SPEED, three_rounds

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with rounds 0, 1 and 2."""
    return three_rounds(tmp_path_factory.mktemp("centre"))


def call(*words: str, state: Path) -> Result:
    """Run a `roadcast round` command on a state folder."""
    return CliRunner().invoke(app, ["round", *words, "--state-dir", str(state)])


def said(*words: str, state: Path) -> Any:
    """What a command that succeeds prints with --json."""
    result = call(*words, "--json", state=state)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_rounds_are_listed(state: Path) -> None:
    """Each round with its state and whether it can be replayed; a task without rounds has none."""
    rows = said("list", state=state)
    assert [(row["round"], row["state"], row["replayable"]) for row in rows[:2]] == [
        (0, "released", True),
        (1, "released", True),
    ]
    assert said("list", "--task", "vehicle", state=state) == []
    assert "replayable" in call("list", state=state).stdout


def test_a_round_is_shown_with_its_devices(state: Path) -> None:
    """Who was heard, how old the report was and what it was trusted with; settings and versions are there."""
    found = said("show", "2", "--task", "speed", state=state)
    assert [(d["device"], d["counts"], d["age"]) for d in found["devices"]] == [("dev-0", True, 0), ("dev-1", True, 1)]
    assert all(0 < d["trust"] < 1 for d in found["devices"])
    assert found["manifest"]["settings"]["strategy"] == "feddistill"
    text = call("show", "2", "--task", "speed", state=state).stdout
    assert "speed: round 2" in text
    assert "dev-1" in text


def test_a_round_that_is_not_there(state: Path) -> None:
    """The error says which and where to look."""
    result = call("show", "9", "--task", "speed", state=state)
    assert isinstance(result.exception, NotReadyError)
    assert "no round 9 of 'speed'" in str(result.exception)


def test_a_replay_by_a_real_process_is_the_same(state: Path) -> None:
    """The worker's own process, started by the command, makes the same bits as the one before."""
    found = said("replay", "2", "--task", "speed", state=state)
    assert found["same"] is True
    assert all(pair["stored"] == pair["replayed"] for pair in found["outcomes"])


def test_a_replay_that_differs_leaves_with_3(state: Path) -> None:
    """Where the stored manifest names another hash, the table says no and the exit code is that of a failed check."""
    database = open_database(state)
    try:
        record = find_round(database, SPEED, 1)
        manifest = manifest_of(state, record)
        assert manifest is not None
        outputs = manifest.outputs | {"candidate/nano/weights.safetensors": "0" * 64}
        other = BlobFolder(state / "blobs").put(encoded(msgspec.structs.replace(manifest, outputs=outputs)))
        database.apply([SaveRound(msgspec.structs.replace(record, manifest=other))])
    finally:
        database.close()
    result = call("replay", "1", "--task", "speed", state=state)
    assert isinstance(result.exception, CheckFailedError)
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [what for what, same, *_ in lines if same == "no"] == ["nano/weights.safetensors"]
