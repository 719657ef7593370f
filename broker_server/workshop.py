"""Work that takes long, off the pump thread: distillation in a process of its own, and the making of releases.

Owns threads and processes; outcomes go into the inbox. Nothing here raises into the pump.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from broker_server.config import ServerConfig
from broker_server.distil_job import DistilJob, read_job, read_result, same_job, votes_of, write_job
from broker_server.effects import CancelDistil, Distil, MakeRelease, ReleaseAgain, Work
from broker_server.events import Distilled, JobFailed, Outcome, ReleaseStored
from broker_server.releases import Hold, Provenance, ReleaseFolder, payloads
from broker_server.round_manifest import MANIFEST, environment
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.store.engine import translated
from edge_protocol.errors import DistillationError, RoadcastError, StoreError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import FullReport, PrototypeReport
from edge_protocol.task import TIERS, TaskSpec

log = logging.getLogger(__name__)
Cancelled = threading.Event
Distiller = Callable[[Path, Cancelled], None]
"""Does the job in a folder and leaves its result there; ends early when cancelled.

Raises:
    DistillationError: it failed.
"""
POLL_S = 0.1
_STEADY = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
"""What a worker's sums must not depend on; torch's own threads are a setting of the job."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the workshop works with: the server's parts, the salt of the proxies, its clock, and where outcomes go."""

    config: ServerConfig
    specs: Mapping[TaskId, TaskSpec]
    database: Database
    releases: ReleaseFolder
    blobs: BlobFolder
    salt: bytes
    clock: Callable[[], float]
    done: Callable[[Outcome], None]


class Workshop:
    """Carries out `Distil`, `CancelDistil`, `MakeRelease` and `ReleaseAgain`.

    Args:
        desk: what to work with.
        distiller: does one job.
        distilling: runs distillations; as many at once as it has threads.
        making: runs the making of releases.
    """

    def __init__(self, desk: Desk, distiller: Distiller, *, distilling: Executor, making: Executor) -> None:
        self._desk, self._distiller = desk, distiller
        self._distilling, self._making = distilling, making
        self._running: dict[tuple[TaskId, int], Cancelled] = {}

    def do(self, work: Work, proxy: str) -> None:
        """Begin a piece of work. `proxy` is the hash of the proxy set that the round's reports answer, "" for none."""
        match work:
            case Distil(task, number, release):
                cancelled = self._running[task, number] = Cancelled()
                self._submit(self._distilling, work, lambda: self._distil(task, number, release, proxy, cancelled))
            case CancelDistil(task, number):
                self._running.pop((task, number), Cancelled()).set()
            case MakeRelease():
                self._submit(self._making, work, lambda: self._make(work))
            case ReleaseAgain():
                self._submit(self._making, work, lambda: self._make_again(work))

    def close(self) -> None:
        """Cancel what runs and wait until every thread has ended."""
        for cancelled in self._running.values():
            cancelled.set()
        for executor in (self._distilling, self._making):
            executor.shutdown(wait=True, cancel_futures=True)

    def job_dir(self, task: TaskId, number: int) -> Path:
        """Folder of a round's job."""
        return Path(self._desk.config.state_dir) / "jobs" / f"{task}-{number}"

    def _submit(
        self, executor: Executor, work: Distil | MakeRelease | ReleaseAgain, act: Callable[[], Outcome]
    ) -> None:
        def finished(future: Future[Outcome]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is None:
                self._desk.done(future.result())
                return
            why = f"{type(error).__name__}: {error}"
            bug = None if isinstance(error, RoadcastError) else error
            log.error("task %s: %s failed: %s", work.task, type(work).__name__, why, exc_info=bug)
            self._desk.done(JobFailed(work.task, work.round, why))

        executor.submit(act).add_done_callback(finished)

    def _distil(self, task: TaskId, number: int, release: int, proxy: str, cancelled: Cancelled) -> Outcome:
        desk, folder = self._desk, self.job_dir(task, number)
        try:
            found = _of_release(desk.database.reports(task, number, proxy), release)
            reports = {device: each if each.round == number else votes_of(each) for device, each in found.items()}
            job = self._job(task, number, release, proxy)
            if not same_job(folder, job, reports):  # the same one goes on from its checkpoints
                shutil.rmtree(folder, ignore_errors=True)
                write_job(folder, job, reports)
            self._distiller(folder, cancelled)
            result = read_result(folder)
            with translated(str(folder)):
                manifest = desk.blobs.put((folder / MANIFEST).read_bytes())
            self._sweep(task, number)
            return Distilled(task, number, result, manifest)
        finally:
            if self._running.get((task, number)) is cancelled:
                del self._running[task, number]

    def _job(self, task: TaskId, number: int, release: int, proxy: str) -> DistilJob:
        config, setup = self._desk.config, self._desk.config.tasks[task]
        current = self._start_of(task, release)
        return DistilJob(
            task=setup.task,
            round=number,
            release=release,
            settings=config.distil_of(task),
            anchors=setup.anchors,
            proxies=setup.proxies or setup.anchors,
            validation=setup.validation,
            proxy=proxy,
            salt=self._desk.salt.hex(),
            current=str(current) if current else None,
            base=self._base(task, release),
            environment=environment(),
            trunk=setup.rounds.trunk,
        )

    def _start_of(self, task: TaskId, release: int) -> Path | None:
        """Folder of the fleet's newest release whose students can be trained on: a pushed one may hold none."""
        aside = self._desk.database.aside(task)
        counters = [record.counter for record in self._desk.database.releases(task)]
        for counter in reversed(counters):
            folder = self._desk.releases.folder(task, counter)
            if (
                counter <= release
                and counter not in aside
                and all((folder / f"{tier}.safetensors").exists() for tier in TIERS)
            ):
                return folder
        return None

    def _make(self, work: MakeRelease) -> Outcome:
        desk, folder = self._desk, self.job_dir(work.task, work.round)
        origin = Provenance(work.round, work.metrics)
        hold = self._policy(work.task)
        record = desk.releases.make(desk.specs[work.task], folder / "candidate", origin, desk.clock(), hold)
        self._sweep(work.task, work.round)
        return ReleaseStored(record, desk.database.draft(work.task, record.counter) if hold else None)

    def _policy(self, task: TaskId) -> Hold | None:
        """How what a round made goes over the fleet; a first release has no other to go back to and is for all."""
        plan = self._desk.config.tasks[task].rollout
        return Hold(plan, "policy", starts=True) if plan and self._desk.database.serving(task) else None

    def _make_again(self, work: ReleaseAgain) -> Outcome:
        desk = self._desk
        return ReleaseStored(
            desk.releases.again(work.task, work.counter, Provenance(None, {}, work.notes), desk.clock())
        )

    def _base(self, task: TaskId, release: int) -> dict[str, str]:
        """Hashes of the weights that the devices run."""
        found = self._desk.database.releases(task, after=release - 1)[:1] if release else []
        return payloads(found[0]) if found else {}

    def _sweep(self, task: TaskId, number: int) -> None:
        """Keep what doing the newest rounds again needs: their jobs, and the training states that these begin at.

        A sweep that fails leaves files; it fails no work: a release that has been made is the fleet's.
        """
        oldest = number - self._desk.config.keep_rounds + 1
        for folder in self.job_dir(task, number).parent.glob(f"{task}-*"):
            name = folder.name.removeprefix(f"{task}-")
            if name.isdigit() and int(name) < oldest:
                shutil.rmtree(folder, ignore_errors=True)
        first = next((n for n in range(oldest, number + 1) if (self.job_dir(task, n) / "job.json").exists()), number)
        try:
            start = read_job(self.job_dir(task, first)).current
            self._desk.releases.forget_training(task, before=int(Path(start).name) if start else 0)
        except (DistillationError, OSError) as error:
            log.warning("no training state is pruned: %s", error)  # of a damaged job: until that round is itself


def _of_release(reports: Mapping[DeviceId, FullReport], release: int) -> dict[DeviceId, FullReport]:
    """Without class means of another release: nobody can use them, and their device said nothing wrong."""
    gone = {device for device, each in reports.items() if isinstance(each, PrototypeReport) and each.release != release}
    return {device: each for device, each in reports.items() if device not in gone}


def worker_process(timeout_s: float) -> Distiller:
    """Make a distiller that runs `broker_server.distil_worker` as a process: killable, with a time limit."""

    def run(folder: Path, cancelled: Cancelled) -> None:
        command = [*_ends_with_us(), sys.executable, "-m", "broker_server.distil_worker", str(folder)]
        with (folder / "worker.log").open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | _STEADY,
            )
            try:
                _await(process, cancelled, timeout_s, folder)
            finally:
                process.kill()
                process.wait()
        if process.returncode and not (folder / "error.json").exists():
            raise DistillationError(f"{folder.name}: the distiller ended with {process.returncode}: {_tail(folder)}")

    return run


def _await(process: subprocess.Popen[bytes], cancelled: Cancelled, timeout_s: float, folder: Path) -> None:
    """Wait for the process to end, and log what it says meanwhile."""
    waited = 0.0
    with (folder / "worker.log").open(encoding="utf-8", errors="replace") as said:
        while process.poll() is None:
            _log_lines(folder.name, said)
            if cancelled.wait(POLL_S):
                raise DistillationError(f"{folder.name}: cancelled")
            waited += POLL_S
            if waited >= timeout_s:
                raise DistillationError(f"{folder.name}: the distiller took more than {timeout_s} s and was stopped")
        _log_lines(folder.name, said)


def _log_lines(job: str, lines: Iterable[str]) -> None:
    for line in lines:
        log.info("%s: %s", job, line.rstrip())


def _tail(folder: Path) -> str:
    try:
        return " | ".join((folder / "worker.log").read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
    except OSError as error:
        raise StoreError(f"{folder}: {error}") from error


def _ends_with_us() -> list[str]:
    """Have the process killed when this one dies, where util-linux offers it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig=KILL"] if setpriv else []
