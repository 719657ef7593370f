"""Does a round again from what is stored, and says whether every bit of the outcome is the same.

Owns the checks before and the comparison after; the round itself is done by the worker that did it first, in a scratch
folder. Safe beside a running server: nothing of the state folder is written.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from broker_server.distil_job import read_result
from broker_server.records import RoundRecord
from broker_server.round_facts import job_folder, manifest_of
from broker_server.round_manifest import MANIFEST, RoundManifest, changed, decoded, digest, environment, outcomes
from broker_server.workshop import Distiller
from edge_protocol.errors import NotReadyError


class Compared(msgspec.Struct, frozen=True):
    """One outcome of a round, as stored and as replayed."""

    what: str
    stored: str
    replayed: str

    @property
    def same(self) -> bool:
        """Whether not a bit differs."""
        return self.stored == self.replayed


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a replay.

    Attributes:
        same: whether every outcome is the same.
        environment: version or machine → ``then → now``, where they differ.
        outcomes: files, scores and reports.
    """

    task: str
    round: int
    same: bool
    environment: dict[str, str]
    outcomes: list[Compared]


def replay(state_dir: Path, record: RoundRecord, distiller: Distiller, *, force: bool = False) -> Replay:
    """Do a round again.

    Args:
        state_dir: the server's state folder.
        record: of the round.
        distiller: does a job in a folder, as for the server.
        force: go on although versions differ.

    Raises:
        NotReadyError: the round cannot be done again, and why: never distilled, pruned, a file that is missing or was
            altered (named), or other versions.
        DistillationError: the worker failed.
    """
    stored = manifest_of(state_dir, record)
    if stored is None:
        raise NotReadyError(
            f"round {record.number} of {record.task!r} was not distilled: {record.reason or record.state}"
        )
    folder = job_folder(state_dir, record)
    _check_inputs(folder, stored.inputs)
    here = environment()
    differs = changed(stored.environment, here, here)
    if differs and not force:
        told = "; ".join(f"{name} {pair}" for name, pair in differs.items())
        raise NotReadyError(f"round {record.number} was made with other versions: {told}; --force tries anyway")
    again = _done_again(folder, stored, distiller)
    then, now = outcomes(stored), outcomes(again)
    compared = [Compared(name, then.get(name, "none"), now.get(name, "none")) for name in {**then, **now}]
    return Replay(
        task=record.task,
        round=record.number,
        same=all(pair.same for pair in compared),
        environment=changed(stored.environment, again.environment),
        outcomes=compared,
    )


def _check_inputs(folder: Path, inputs: Mapping[str, str]) -> None:
    if not folder.exists():
        raise NotReadyError(
            f"{folder}: was pruned; the server keeps what replaying needs for its newest keep_rounds rounds only"
        )
    for name, expected in inputs.items():
        path = folder / name
        try:
            found = digest(path)
        except OSError as error:
            raise NotReadyError(
                f"{path}: is missing ({error.strerror}); the round cannot be replayed without"
            ) from error
        if found != expected:
            raise NotReadyError(
                f"{path}: was altered since the round: SHA-256 is {found[:12]}…, not {expected[:12]}…; restore it"
            )


def _done_again(folder: Path, stored: RoundManifest, distiller: Distiller) -> RoundManifest:
    with TemporaryDirectory(prefix="roadcast-replay-") as scratch:
        job = Path(scratch) / "jobs" / folder.name
        job.mkdir(parents=True)
        for name in (name for name in stored.inputs if not Path(name).is_absolute()):
            (job / name).parent.mkdir(exist_ok=True)
            shutil.copy(folder / name, job / name)
        distiller(job, threading.Event())
        read_result(job)
        return decoded((job / MANIFEST).read_bytes(), str(job / MANIFEST))
