"""What a server's state folder says about tasks, releases and devices; owns no wording and no layout."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from broker_server.conduct_file import read_conduct
from broker_server.foreign import foreign, warnings
from broker_server.records import DeviceRecord, ReleaseRecord, RoundRecord, StoredState
from broker_server.rollout_fates import Fate
from broker_server.rollout_orders import waits_for
from broker_server.rollout_states import RolloutState
from broker_server.round_facts import reports_of
from broker_server.store.database import Database
from edge_protocol.errors import NotReadyError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.messages import Measured

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
    """Tasks with their rounds and releases, and devices with what each runs, how it is doing and what it did wrong.

    Raises:
        StoreError: the disk refused.
    """
    rounds = database.rounds(limit=NEWEST_ROUNDS)
    states = {(s.device, s.state.task): s for s in database.states()}
    boards, measured = database.telemetry(), database.measurements()
    offences = msgspec.to_builtins(read_conduct(database.path.parent))
    listed, strange = release_list(database), foreign(database)
    tasks = sorted({r.task for r in rounds} | {r["task"] for r in listed})
    return {
        "tasks": {
            task: {
                "rounds": [_round(r, reports_of(database, r)) for r in rounds if r.task == task],
                "releases": [r for r in listed if r["task"] == task],
            }
            for task in tasks
        },
        "devices": [
            _device(device, states, measured)
            | {
                "telemetry": boards.get(device.device),
                "offences": offences.get(device.device, {}),
                "foreign": [{"says": f.says, "fix": f.fix} for f in strange if f.device == device.device],
            }
            for device in database.devices()
        ],
        "offences": offences,
        "warnings": warnings(strange),
    }


def device_details(database: Database, name: str) -> dict[str, Any]:
    """All that is known of one device: what `status` says, the round of its last report, and its rollouts.

    Raises:
        NotReadyError: no such device has ever been heard of.
        StoreError: the disk refused.
    """
    known = status(database)["devices"]
    found: dict[str, Any] | None = next((device for device in known if device["device"] == name), None)
    if found is None:
        names = ", ".join(device["device"] for device in known[:20]) or "none"
        raise NotReadyError(f"no device {name!r} has been heard of; known: {names}")
    device = DeviceId(name)
    return {
        **found,
        "reports": database.last_reports(device),
        "rollouts": [
            {"task": p.task, "release": p.counter, "wave": p.wave, "state": p.state, "reason": p.reason}
            for p in database.progress_of(device)
        ],
    }


def release_list(database: Database) -> list[dict[str, Any]]:
    """Every release in a line, and where it stands: ``fleet``, or how its rollout does; "" for one that was before.

    Raises:
        StoreError: the disk refused.
    """
    rollouts = {(r.task, r.counter): r for r in database.rollouts()}
    served = {task: database.serving(task) for task in database.newest()}
    found = []
    for record in database.releases():
        current, rollout = served[record.task], rollouts.get((record.task, record.counter))
        standing = "fleet" if current is not None and record.counter == current.counter else ""
        if rollout is not None and (rollout.state != RolloutState.COMPLETE.value or not rollout.whole_fleet):
            standing = rollout.state if rollout.whole_fleet else f"{rollout.state} for {rollout.plan.to}"
        found.append(release_summary(record) | {"standing": standing})
    return found


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
    """A release with the hash that signed metadata list, and every file of every tier."""
    manifest = decode_manifest(record.manifest)
    return release_summary(record) | {
        "fleet": manifest.fleet,
        "manifest": sha256(record.manifest).hexdigest(),
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


def rollout_status(database: Database, task: str, counter: int, now: float) -> dict[str, Any]:
    """How far a rollout has come, what it waits for, and how each of its devices fares.

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
        "waits_for": waits_for(record, now),
        "counts": {fate.value: fates[fate.value] for fate in Fate},
        "devices": [{name: d[name] for name in ("device", "wave", "state", "since_s", "reason")} for d in devices],
    }


def _round(record: RoundRecord, reports: int | None) -> dict[str, Any]:
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


def measurement(at_s: float, measured: Measured) -> dict[str, Any]:
    """How fast a device's student answered, without the id of the message that asked."""
    found: dict[str, Any] = msgspec.structs.asdict(measured)
    return {"at_s": at_s, **{name: value for name, value in found.items() if name not in {"task", "asked"}}}


def _device(
    device: DeviceRecord,
    states: dict[tuple[Any, Any], StoredState],
    measured: dict[tuple[DeviceId, TaskId], tuple[float, Measured]],
) -> dict[str, Any]:
    tasks = {}
    for runs in device.tasks:
        stored = states.get((device.device, runs.task))
        told = {"at_s": stored.at_s, **msgspec.structs.asdict(stored.state)} if stored else None
        fast = measured.get((device.device, runs.task))
        tasks[TaskId(runs.task)] = {
            **msgspec.to_builtins(runs),
            "state": told,
            "measured": measurement(*fast) if fast else None,
        }
    return {
        "device": device.device,
        "state": device.state,
        "board": device.board,
        "software": device.software,
        "runtime": device.runtime,
        "tags": list(device.tags),
        "seen_s": device.seen_s,
        "tasks": tasks,
    }
