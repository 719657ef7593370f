"""What a state folder says about single rounds: who was heard, who was refused and why, and what came of it.

Owns no wording and no layout; reads beside a running server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from broker_server.records import RoundRecord
from broker_server.round_manifest import RoundManifest, decoded
from broker_server.rounds import RoundState
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from edge_protocol.errors import DigestError, NotReadyError
from edge_protocol.ids import TaskId


def find_round(database: Database, task: str, number: int) -> RoundRecord:
    """The record of a round.

    Raises:
        NotReadyError: there is none.
    """
    for record in database.rounds(TaskId(task)):
        if record.number == number:
            return record
    raise NotReadyError(f"{database.path}: no round {number} of {task!r}; see: roadcast round list")


def manifest_of(state_dir: Path, record: RoundRecord) -> RoundManifest | None:
    """The manifest of a round; None when nothing was distilled.

    Raises:
        NotReadyError: it is damaged or gone.
    """
    if record.manifest is None:
        return None
    try:
        data = BlobFolder(state_dir / "blobs").read(record.manifest)
    except DigestError as error:
        raise NotReadyError(f"manifest of round {record.number} of {record.task!r}: {error}") from error
    return decoded(data, f"manifest of round {record.number} of {record.task!r}")


def job_folder(state_dir: Path, record: RoundRecord) -> Path:
    """Where a round's job is, or was before it was pruned."""
    return state_dir / "jobs" / f"{record.task}-{record.number}"


def reports_of(database: Database, record: RoundRecord) -> int | None:
    """How many reports a round accepted, so far or in all; None: it was over before servers wrote that down.

    Raises:
        StoreError: the disk refused.
    """
    taking = record.state in {RoundState.OPEN.value, RoundState.COLLECTING.value}
    return len(database.answered(record.task, record.number)) if taking else record.reports


def round_summary(state_dir: Path, database: Database, record: RoundRecord) -> dict[str, Any]:
    """A round in a line.

    Raises:
        StoreError: the disk refused.
    """
    return {
        "task": record.task,
        "round": record.number,
        "state": record.state,
        "release": record.release,
        "reports": reports_of(database, record),
        "refused": len(record.refused),
        "replayable": record.manifest is not None and job_folder(state_dir, record).exists(),
        "reason": record.reason,
    }


def round_details(record: RoundRecord, manifest: RoundManifest | None) -> dict[str, Any]:
    """A round with every device that was heard or refused, and the manifest of what was distilled."""
    told: dict[str, Any] = msgspec.to_builtins(record)
    stored = {"manifest": msgspec.to_builtins(manifest)} if manifest else {}
    return told | stored | {"devices": _devices(record, manifest)}


def _devices(record: RoundRecord, manifest: RoundManifest | None) -> list[dict[str, Any]]:
    """Who was heard (age in rounds, share of the teacher where the strategy tells it), and who was refused and why.

    A device of which an older report counts has the reason why its fresh one was refused.

    ``trunk`` is None for a device that sent no change of its trunk, "counts" or why it does not.
    """
    rounds, teacher, trunks = (
        (manifest.reports, manifest.result.teacher, manifest.result.trunks) if manifest else ({}, {}, {})
    )
    heard = [
        {
            "device": device,
            "counts": True,
            "age": record.number - said,
            "trust": teacher.get(f"share/{device}"),
            "reason": record.refused.get(device, ""),
            "trunk": trunks[device] or "counts" if device in trunks else None,
        }
        for device, said in rounds.items()
    ]
    refused = [
        {"device": device, "counts": False, "age": None, "trust": None, "reason": reason, "trunk": None}
        for device, reason in sorted(record.refused.items())
        if device not in rounds
    ]
    return heard + refused
