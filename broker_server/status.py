"""What a server's state folder says about tasks, releases and devices; owns no wording and no layout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from broker_server.records import DeviceRecord, ReleaseRecord, RoundRecord, StoredState
from broker_server.releases import signed_manifest
from broker_server.rollout_fates import Fate
from broker_server.store.database import Database
from edge_protocol.errors import NotReadyError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import decode_manifest

NEWEST_ROUNDS = 100


def open_database(state_dir: Path) -> Database:
    """Open the database of a state folder, beside a server that may be running.

    Raises:
        NotReadyError: no server has run on this folder yet.
        StoreError: the disk refused.
    """
    path = state_dir / "server.db"
    if not path.exists():
        raise NotReadyError(
            f"{path}: there is none; start the server once (roadcast server run), or name its state_dir"
        )
    return Database(path)


def status(database: Database) -> dict[str, Any]:
    """Tasks with their rounds and releases, and devices with what each runs and how it is doing.

    Raises:
        StoreError: the disk refused.
    """
    rounds, releases = database.rounds(limit=NEWEST_ROUNDS), database.releases()
    states = {(s.device, s.state.task): s for s in database.states()}
    boards = database.telemetry()
    tasks = sorted({r.task for r in rounds} | {r.task for r in releases})
    return {
        "tasks": {
            task: {
                "rounds": [_round(r, len(database.answered(task, r.number))) for r in rounds if r.task == task],
                "releases": [release_summary(r) for r in releases if r.task == task],
            }
            for task in tasks
        },
        "devices": [
            _device(device, states) | {"telemetry": boards.get(device.device)} for device in database.devices()
        ],
    }


def release_summary(record: ReleaseRecord) -> dict[str, Any]:
    """A release in a line."""
    return {
        "task": record.task,
        "counter": record.counter,
        "round": record.round,
        "created_s": record.created_s,
        "metrics": record.metrics,
        "notes": record.notes,
        "on_broker": record.on_broker,
    }


def release_details(record: ReleaseRecord) -> dict[str, Any]:
    """A release with who signed it and every file of every tier."""
    signed = signed_manifest(record)
    manifest = decode_manifest(signed.manifest)
    return release_summary(record) | {
        "fleet": manifest.fleet,
        "key_id": signed.key_id,
        "label_space": manifest.task.label_space,
        "artifacts": [
            {
                "tier": artifact.tier,
                "variant": artifact.variant,
                "student": artifact.student,
                "parameters": artifact.parameters,
                "files": {
                    name: {"sha256": ref.sha256, "bytes": ref.size, "chunks": ref.chunks}
                    for name in ("template", "weights", "golden")
                    for ref in [getattr(artifact, name)]
                },
            }
            for artifact in manifest.artifacts
        ],
    }


def rollout_status(database: Database, task: str, counter: int) -> dict[str, Any]:
    """How far a rollout has come, and how each of its devices fares.

    Raises:
        NotReadyError: the release has no rollout.
        StoreError: the disk refused.
    """
    record = database.draft(TaskId(task), counter)
    if record is None:
        raise NotReadyError(f"release {counter} of {task!r} has no rollout; push it with: roadcast release push --hold")
    devices = [msgspec.to_builtins(p) for p in database.progress(record.task, counter)]
    fates = Counter(device["state"] for device in devices)
    found: dict[str, Any] = msgspec.to_builtins(record)
    return {
        "task": found.pop("task"),
        "release": found.pop("counter"),
        **found,
        "counts": {fate.value: fates[fate.value] for fate in Fate},
        "devices": [{name: d[name] for name in ("device", "wave", "state", "since_s", "reason")} for d in devices],
    }


def _round(record: RoundRecord, reports: int) -> dict[str, Any]:
    return {
        "number": record.number,
        "state": record.state,
        "release": record.release,
        "reports": reports,
        "refused": record.refused,
        "reason": record.reason,
        "opened_s": record.opened_s,
        "deadline_s": record.deadline_s,
        "closed_s": record.closed_s,
    }


def _device(device: DeviceRecord, states: dict[tuple[Any, Any], StoredState]) -> dict[str, Any]:
    tasks = {}
    for runs in device.tasks:
        stored = states.get((device.device, runs.task))
        told = {"at_s": stored.at_s, **msgspec.structs.asdict(stored.state)} if stored else None
        tasks[TaskId(runs.task)] = {**msgspec.to_builtins(runs), "state": told}
    return {
        "device": device.device,
        "state": device.state,
        "board": device.board,
        "software": device.software,
        "seen_s": device.seen_s,
        "tasks": tasks,
    }
