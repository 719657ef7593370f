"""Training jobs: whatever befalls one costs a round and no more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_client.account import Account
from edge_client.config import PrivacyConfig
from edge_client.effects import Train, Trained, TrainFailed
from edge_client.governor import PauseConfig, Reading
from edge_client.jobs import read_job
from edge_client.lessons import Lessons
from edge_client.training import Finished, Training
from edge_models.tasks import load_task
from edge_protocol.arrays import unpack
from edge_protocol.blobs import cut
from edge_protocol.manifest import Artifact
from edge_protocol.messages import ClassVotes
from tests.edge_client.device_rig import device_config
from tests.edge_client.test_trainer import call, job
from tests.fakes.waiting import wait_for

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")


def finish(training: Training, now: float = 0.0) -> Finished:
    """Wait for the job."""
    return wait_for(lambda: training.poll(now), "end of the job", within_s=60)


def command(code: str) -> tuple[str, ...]:
    """A stand-in for the trainer."""
    return (sys.executable, "-c", code)


def test_a_job_that_crashes_hangs_or_lies_is_a_reason(tmp_path: Path) -> None:
    """Exit codes, complaints, time limits, missing results."""
    given = job(tmp_path, VEHICLE, samples=0, proxies=0)
    crash = Training(tmp_path / "jobs", 60, command("import sys; sys.exit('out of luck')"))
    assert crash.start(1, given, 0.0) is None
    assert crash.busy
    assert finish(crash).reason == "ended with code 1: out of luck"
    killed = Training(tmp_path / "jobs", 60, command("import os; os.kill(os.getpid(), 9)"))
    killed.start(2, given, 0.0)
    assert finish(killed).reason.startswith("ended with code -9")
    hang = Training(tmp_path / "jobs", 60, command("import time; time.sleep(600)"))
    hang.start(3, given, 0.0)
    assert hang.poll(59.0) is None
    found = hang.poll(60.0)
    assert found is not None
    assert found.reason == "killed after 60 s"
    assert not hang.busy
    silent = Training(tmp_path / "jobs", 60, command("pass"))
    silent.start(4, given, 0.0)
    assert "result.json" in finish(silent).reason
    nobody = Training(tmp_path / "jobs", 60, ("/nonexistent/trainer",))
    failed = nobody.start(5, given, 0.0)
    assert failed is not None
    assert "could not be started" in failed.reason
    assert nobody.poll(0.0) is None


def test_a_job_can_be_stopped_and_makes_way_for_the_next(tmp_path: Path) -> None:
    """Only the job that is named; its files go."""
    given = job(tmp_path, VEHICLE, samples=0, proxies=0)
    training = Training(tmp_path / "jobs", 60, command("import time; time.sleep(600)"))
    training.start(1, given, 0.0)
    training.stop(99)
    assert training.busy
    training.start(2, given, 0.0)
    assert not (tmp_path / "jobs" / "1").exists()
    training.stop(2)
    training.stop()
    assert not training.busy
    assert training.poll(0.0) is None


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_job_is_stopped_while_the_board_is_hot_and_goes_on_when_it_is_cool(tmp_path: Path) -> None:
    """A real process: not started, started, stopped, continued; put off when it had to wait too long."""
    celsius = [90.0]
    limits = PauseConfig(hot_c=80, cool_c=70, patience_s=100)
    sleeper = command("import time; time.sleep(600)")
    training = Training(tmp_path / "jobs", 60, sleeper, limits, lambda: Reading(celsius=celsius[0]))
    given = job(tmp_path, VEHICLE, samples=0, proxies=0)
    assert training.start(1, given, 0.0) is None
    assert training.busy
    current = training._current
    assert current is not None
    assert current.process is None
    celsius[0] = 60
    assert training.poll(10.0) is None
    assert current.process is not None
    pid = current.process.pid
    celsius[0] = 85
    training.poll(20.0)
    wait_for(lambda: state_of(pid) == "T", "the job to stop")
    celsius[0] = 75
    training.poll(30.0)
    assert state_of(pid) == "T", "between the limits it stays where it is"
    celsius[0] = 65
    training.poll(40.0)
    wait_for(lambda: state_of(pid) != "T", "the job to go on")
    celsius[0] = 85
    training.poll(50.0)
    assert training.poll(149.0) is None
    put_off = training.poll(150.0)
    assert put_off is not None
    assert put_off.reason == "put off: the board was hot for 100 s"
    assert not training.busy
    assert not Path(f"/proc/{pid}").exists()


def lessons(
    folder: Path,
    code: str,
    artifact: Artifact | None,
    privacy: PrivacyConfig = PrivacyConfig(),  # noqa: B008 - frozen
) -> Lessons:
    """A device's lessons with a stand-in trainer."""
    config = device_config(folder, sources=[{"name": "x", "uri": "pack:///none"}])
    training = Training(folder / "jobs", 60, command(code))
    account = Account(folder / "privacy.json", privacy)
    return Lessons(config, VEHICLE, training, lambda sha256: folder / sha256 / "data", lambda: artifact, account)


ARTIFACT = Artifact("nano", "depthwise", cut(b"t")[0], cut(b"w")[0], cut(b"g")[0], 1)
WRITE = """
import sys, json
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from edge_models.head_weights import HeadWeights
folder = Path(sys.argv[1])
(folder / "personal.safetensors").write_bytes(HeadWeights(np.ones((6, 64), "f4"), np.zeros(6, "f4")).to_bytes())
votes = {"odds": np.float32([[0.9, 0.1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 9]])}
save_file(votes, folder / "votes.safetensors")
choice = {"chosen": "personal", "shared": {}, "personal": {}, "n_train": 1, "n_valid": 1}
(folder / "result.json").write_text(json.dumps({"choice": choice, "examples": 2, "held": [1, 0, 0, 0, 0, 0]}))
"""


def test_a_lesson_gives_a_head_and_a_report_and_leaves_no_files(tmp_path: Path) -> None:
    """The newest head of a release is handed over once."""
    made = lessons(tmp_path, WRITE, ARTIFACT)
    assert made.poll(0.0) == []
    for number in (1, 2):
        assert made.start(Train(number, 5, None, call(VEHICLE)), 0.0) == []
        (done,) = wait_for(lambda: made.poll(0.0), "end of the job")
        assert isinstance(done, Trained)
        assert done.report is not None
        assert isinstance(done.report.votes, ClassVotes)
        assert unpack(done.report.votes.density).tolist() == [2, 0], "odds 0.9 are level 2; the other is not held"
    assert not list((tmp_path / "jobs").iterdir())
    fitted = made.refitted(5)
    assert fitted is not None
    assert fitted.choice.chosen == "personal"
    assert made.refitted(5) is None
    made.close()


def test_a_report_is_paid_for_before_it_is_handed_over_and_none_is_made_when_the_budget_is_spent(
    tmp_path: Path,
) -> None:
    """A budget for one: the first round is answered with noise, the second only refits the personal head."""
    privacy = PrivacyConfig(epsilon_per_report=2.0, epsilon_total=2.5)
    made = lessons(tmp_path, WRITE, ARTIFACT, privacy)
    made.start(Train(1, 5, None, call(VEHICLE)), 0.0)
    given = read_job(tmp_path / "jobs" / "1")
    assert given.sigma == pytest.approx(2.149, abs=1e-3)
    assert not (tmp_path / "privacy.json").exists(), "a job that may yet fail costs nothing"
    (done,) = wait_for(lambda: made.poll(0.0), "end of the job")
    assert isinstance(done, Trained)
    assert done.report is not None
    assert done.spent
    assert Account(tmp_path / "privacy.json", privacy).exhausted, "on the disk by the time the report can be sent"
    made.start(Train(2, 5, None, call(VEHICLE)), 0.0)
    assert read_job(tmp_path / "jobs" / "2").proxy is None
    (done,) = wait_for(lambda: made.poll(0.0), "end of the job")
    assert done == Trained(2, None, spent=True)
    assert made.refitted(5) is not None
    made.close()


def test_a_report_that_cannot_be_written_down_is_not_handed_over(tmp_path: Path) -> None:
    """A full disk costs the round, not the account."""
    made = lessons(tmp_path, WRITE, ARTIFACT, PrivacyConfig(epsilon_per_report=2.0))
    (tmp_path / "privacy.json").mkdir()
    made.start(Train(1, 5, None, call(VEHICLE)), 0.0)
    (failed,) = wait_for(lambda: made.poll(0.0), "end of the job")
    assert isinstance(failed, TrainFailed)
    assert "cannot write" in failed.reason
    made.close()


def test_a_lesson_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    """Nothing to train on, no process, a crash, a result without its files."""
    (nothing,) = lessons(tmp_path, "pass", None).start(Train(1, 5, None, None), 0.0)
    assert "no release" in nothing.reason
    crash = lessons(tmp_path, "raise SystemExit('boom')", ARTIFACT)
    crash.start(Train(2, 5, None, None), 0.0)
    (failed,) = wait_for(lambda: crash.poll(0.0), "end of the job")
    assert isinstance(failed, TrainFailed)
    assert "boom" in failed.reason
    torn = lessons(tmp_path, WRITE.replace('save_file(votes, folder / "votes.safetensors")', ""), ARTIFACT)
    torn.start(Train(3, 5, ARTIFACT, call(VEHICLE)), 0.0)
    (failed,) = wait_for(lambda: torn.poll(0.0), "end of the job")
    assert isinstance(failed, TrainFailed)
    assert "votes" in failed.reason
    torn.start(Train(4, 5, ARTIFACT, None), 0.0)
    torn.stop(4)
    assert not torn.busy
    (tmp_path / "jobs").mkdir(exist_ok=True)
    (tmp_path / "jobs" / "5").write_text("in the way")
    (failed,) = torn.start(Train(5, 5, ARTIFACT, None), 0.0)
    assert "could not be started" in failed.reason
