"""Long work: done elsewhere, cancelled, timed out, failed; the outcome always arrives."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import broker_server.workshop as module
from broker_server import effects as e
from broker_server.config import RoundsConfig
from broker_server.distil_job import read_job, read_result
from broker_server.events import Distilled, JobFailed, ReleaseStored
from broker_server.key_setup import signed_roles
from broker_server.records import StoredReport
from broker_server.releases import ReleaseFolder
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.workshop import Desk, Distiller, Workshop, worker_process
from edge_models.tasks import load_task
from edge_protocol.arrays import pack
from edge_protocol.errors import DistillationError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.prototypes import PrototypeReport
from tests.fakes.centre import centre_config, scripted_distiller, write_packs

TASK = TaskId("vehicle")
WITHIN_S = 20.0


class Place:
    """A workshop with threads, and its outcomes."""

    def __init__(self, folder: Path, distiller: Distiller) -> None:
        self.done: Queue[Any] = Queue()
        write_packs(folder, samples=6)
        config = centre_config(folder, rounds=RoundsConfig())
        state = Path(config.state_dir)
        self.database = Database(state / "server.db")
        blobs = BlobFolder(state / "blobs")
        releases = ReleaseFolder(state, "sim", self.database, blobs, signed_roles(config))
        specs = {TASK: load_task("vehicle")}
        desk = Desk(config, specs, self.database, releases, blobs, b"salt", lambda: 5.0, self.done.put)
        self.workshop = Workshop(desk, distiller, distilling=ThreadPoolExecutor(1), making=ThreadPoolExecutor(1))

    def outcome(self) -> Any:
        """The next outcome."""
        return self.done.get(timeout=WITHIN_S)


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Any]:
    """Makes places, and closes them."""
    made: list[Place] = []

    def make(distiller: Distiller) -> Place:
        made.append(Place(tmp_path, distiller))
        return made[-1]

    yield make
    for place in made:
        place.workshop.close()
        place.database.close()


def test_a_candidate_becomes_a_release_that_the_next_job_starts_from(places: Any) -> None:
    """Distil, make, distil again: each job starts at the newest release; what no kept job starts at is swept."""
    place = places(scripted_distiller([0.1 * n for n in range(1, 9)]))
    for number in range(7):
        place.workshop.do(e.Distil(TASK, number, number), "")
        done = place.outcome()
        assert isinstance(done, Distilled)
        assert done.round == number
        place.workshop.do(e.MakeRelease(TASK, number, {"nano/accuracy": 0.5}), "")
        stored = place.outcome()
        assert isinstance(stored, ReleaseStored)
        assert (stored.release.counter, stored.release.round) == (number + 1, number)
    job = read_job(place.workshop.job_dir(TASK, 6))
    assert job.current is not None
    assert job.current.endswith("releases/vehicle/6")
    assert [place.workshop.job_dir(TASK, n).exists() for n in range(7)] == [False, False, *[True] * 5]
    states = (Path(job.current).parent).glob("*/nano.training.safetensors")
    assert sorted(int(path.parent.name) for path in states) == [2, 3, 4, 5, 6, 7]
    assert (Path(job.current).parent / "1" / "nano.safetensors").exists()


def test_class_means_of_another_release_are_left_out_unblamed(places: Any) -> None:
    """A device that said nothing after a release is not refused for what it said before."""
    place = places(scripted_distiller([0.1]))
    nothing = [pack(np.zeros(shape, dtype)) for shape, dtype in ((0, "u1"), ((0, 64), "f2"), (0, "u1"))]
    for at, release in enumerate((1, 2)):
        told = PrototypeReport(TASK, load_task("vehicle").label_space, 2, release, "nano", *nothing)
        device, message = DeviceId(f"cam-{release}"), bytes([at]) * 16
        stored = StoredReport(round=2, device=device, message_id=message, received_s=1.0, report=told)
        place.database.apply([e.SaveReport(stored)])
    place.workshop.do(e.Distil(TASK, 3, 2), "")
    place.outcome()
    assert read_job(place.workshop.job_dir(TASK, 3)).reports == ("cam-2.report",)


def test_a_damaged_job_of_an_old_round_stops_no_new_one(places: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Half a job.json, as a power cut leaves it, keeps training states from being swept, and nothing else."""
    place = places(scripted_distiller([0.1, 0.2]))
    place.workshop.do(e.Distil(TASK, 0, 0), "")
    place.outcome()
    (place.workshop.job_dir(TASK, 0) / "job.json").write_text("{")
    place.workshop.do(e.Distil(TASK, 1, 0), "")
    assert isinstance(place.outcome(), Distilled)
    assert "no training state is pruned" in caplog.text


def test_a_training_state_that_cannot_be_removed_fails_no_round(places: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What is made is told as made: else the next round were called on the release before a release that is out."""
    place = places(scripted_distiller([0.1 * n for n in range(1, 9)]))
    stays = place.workshop._desk.releases.folder(TASK, 1) / "nano.training.safetensors"
    for number in range(7):
        place.workshop.do(e.Distil(TASK, number, number), "")
        assert isinstance(place.outcome(), Distilled)
        place.workshop.do(e.MakeRelease(TASK, number, {}), "")
        assert isinstance(place.outcome(), ReleaseStored)
        if number == 1:
            stays.unlink()
            stays.mkdir()
    assert f"no training state is pruned: [Errno 21] Is a directory: '{stays}'" in caplog.text


def test_errors_of_any_kind_become_an_outcome(places: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A distiller that raises what it may, or what it should not, and a candidate that is not there."""
    errors: list[Exception] = [DistillationError("no memory"), ZeroDivisionError("a bug")]

    def broken(_folder: Path, _cancelled: threading.Event) -> None:
        raise errors.pop(0)

    place = places(broken)
    for text in ("DistillationError: no memory", "ZeroDivisionError: a bug"):
        place.workshop.do(e.Distil(TASK, 1, 0), "")
        assert place.outcome() == JobFailed(TASK, 1, text)
    assert "Traceback" in caplog.text
    place.workshop.do(e.MakeRelease(TASK, 1, {}), "")
    assert "nothing to release" in place.outcome().reason


def test_a_release_that_cannot_be_made_again_is_logged_and_told(places: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody may believe that the fleet is back when it is not."""
    place = places(scripted_distiller([]))
    place.workshop.do(e.ReleaseAgain(TASK, 7, "back"), "")
    told = place.outcome()
    assert (told.task, told.round) == (TASK, e.NO_ROUND)
    assert "no release 7 of 'vehicle' to go back to" in told.reason
    assert f"task vehicle: ReleaseAgain failed: {told.reason}" in caplog.text
    assert "Traceback" not in caplog.text


def test_cancelling_ends_the_job_that_runs(places: Any) -> None:
    """The distiller hears of it, and the outcome is a failure."""
    begun = threading.Event()

    def patient(folder: Path, cancelled: threading.Event) -> None:
        begun.set()
        assert cancelled.wait(WITHIN_S)
        raise DistillationError(f"{folder.name}: cancelled")

    place = places(patient)
    place.workshop.do(e.Distil(TASK, 2, 0), "")
    assert begun.wait(WITHIN_S)
    place.workshop.do(e.CancelDistil(TASK, 9), "")
    place.workshop.do(e.CancelDistil(TASK, 2), "")
    assert place.outcome() == JobFailed(TASK, 2, "DistillationError: vehicle-2: cancelled")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Puts a program of the test in place of the worker: `python -m broker_server.distil_worker` runs it."""

    def install(code: str) -> Path:
        script = tmp_path / "worker.sh"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}'\n")
        script.chmod(0o755)
        monkeypatch.setattr(module, "sys", SimpleNamespace(executable=str(script)))
        (tmp_path / "job-1").mkdir()
        return tmp_path / "job-1"

    return install


def test_a_worker_that_takes_too_long_is_stopped(program: Any) -> None:
    """The process is killed at its time limit."""
    with pytest.raises(DistillationError, match=r"more than 0\.3 s"):
        worker_process(0.3)(program("import time; time.sleep(60)"), threading.Event())


def test_a_worker_can_be_cancelled(program: Any) -> None:
    """A cancelled job ends its process at once."""
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(DistillationError, match="cancelled"):
        worker_process(60)(program("import time; time.sleep(60)"), cancelled)


def test_a_worker_that_dies_is_quoted(program: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Its last lines stand in the error, and its progress in the log."""
    caplog.set_level("INFO")
    with pytest.raises(DistillationError, match=r"ended with 3: epoch 1 \| out of memory"):
        worker_process(60)(
            program('print("epoch 1"); print("out of memory"); exit(3)'),
            threading.Event(),
        )
    assert "job-1: out of memory" in caplog.text


def test_a_worker_that_explains_itself_is_left_to_its_explanation(program: Any) -> None:
    """With error.json in place nothing is raised here: reading the result tells."""
    folder = program("exit(1)")
    (folder / "error.json").write_text("{}")
    worker_process(60)(folder, threading.Event())
    assert cast("Path", folder / "worker.log").exists()


def test_the_real_worker_says_why_it_cannot(tmp_path: Path) -> None:
    """The real process, given an empty folder, leaves an error that the reader of results raises."""
    folder = tmp_path / "job-1"
    folder.mkdir()
    worker_process(100)(folder, threading.Event())
    with pytest.raises(DistillationError, match=r"job\.json"):
        read_result(folder)
