"""Training: what the subprocess fits and says, and that whatever befalls it costs a round and no more."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from devices.preprocess import PreprocessConfig
from edge_client import trainer
from edge_client.effects import Train, Trained, TrainFailed
from edge_client.installed import HeadChoice
from edge_client.jobs import TrainJob, TrainResult, read_job, read_result, write_job
from edge_client.knowledge import read_report
from edge_client.lessons import Lessons
from edge_client.replay import Kept, ReplayStore
from edge_client.training import Finished, Training
from edge_models.head_weights import HeadWeights
from edge_models.samples import Samples
from edge_models.tasks import load_task, plugin_of
from edge_protocol.arrays import unpack
from edge_protocol.blobs import cut
from edge_protocol.errors import DataError, IncompatibleError, StoreError
from edge_protocol.manifest import Artifact
from edge_protocol.messages import ClassVotes, ForecastVotes, RoundCall
from edge_protocol.task import TaskSpec
from tests.edge_client.device_rig import device_config
from tests.fakes.small_centre import artifact_files
from tests.fakes.waiting import wait_for

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
CHOICE = HeadChoice(chosen="shared", shared={}, personal={}, n_train=0, n_valid=0)


def fill(folder: Path, spec: TaskSpec, samples: int) -> Samples:
    """A replay store of simulated samples."""
    made = plugin_of(spec).simulate(spec, np.random.default_rng(5), samples)
    store = ReplayStore(folder / "replay.db", 100_000_000)
    store.add(
        Kept(
            f"s-{i}",
            float(i),
            made.raw[i],
            int(made.targets[i]) if spec.labels else made.targets[i].astype(np.float32),
            made.side[i],
            made.scale[i],
        )
        for i in range(len(made))
    )
    store.close()
    return made


def job(folder: Path, spec: TaskSpec, *, proxies: int = 12, samples: int = 120) -> TrainJob:
    """A whole job's files."""
    fill(folder, spec, samples)
    files = artifact_files(spec.name)
    (folder / "template").write_bytes(files.template)
    (folder / "weights").write_bytes(files.weights)
    raw = plugin_of(spec).simulate(spec, np.random.default_rng(6), proxies).raw if proxies else None
    if raw is not None:
        (folder / "proxy").write_bytes(save({"raw": np.ascontiguousarray(raw)}))
    return TrainJob(
        spec=spec,
        preprocess=PreprocessConfig(),
        template=str(folder / "template"),
        weights=str(folder / "weights"),
        replay=str(folder / "replay.db"),
        proxy=str(folder / "proxy") if raw is not None else None,
        epochs=20,
        max_samples=1000,
        nice=0,
        memory_mb=4096,
    )


def call(spec: TaskSpec) -> RoundCall:
    """A round."""
    return RoundCall(spec.name, spec.label_space, 3, 1, cut(b"proxy")[0], 4e9, open=True)


def test_a_camera_learns_and_answers_the_proxy_set(tmp_path: Path) -> None:
    """The personal head beats the shared one of an untrained student; the votes make a legal report."""
    write_job(tmp_path, job(tmp_path, VEHICLE))
    result = trainer.run_job(tmp_path)
    assert result == read_result(tmp_path)
    assert result.choice.chosen == "personal"
    assert result.choice.personal["accuracy"] > result.choice.shared["accuracy"]
    assert (result.examples, sum(result.held)) == (120, 6)
    HeadWeights.from_bytes((tmp_path / "personal.safetensors").read_bytes())
    report = read_report(tmp_path, result, spec=VEHICLE, call=call(VEHICLE), release=1)
    assert isinstance(report.votes, ClassVotes)
    assert report.votes.samples == 12
    assert (report.round, report.release, report.examples) == (3, 1, 120)
    assert unpack(report.votes.density).max() > 10, "proxies like the device's own samples are familiar to it"


def test_a_sensor_learns_and_answers_the_proxy_set(tmp_path: Path) -> None:
    """Mean and spread per horizon, scored in the task's unit."""
    write_job(tmp_path, job(tmp_path, SPEED))
    result = trainer.run_job(tmp_path)
    assert "mae" in result.choice.shared
    assert result.held == ()
    report = read_report(tmp_path, result, spec=SPEED, call=call(SPEED), release=1)
    assert isinstance(report.votes, ForecastVotes)
    assert unpack(report.votes.mean).shape == (12, 3)


def test_a_device_that_has_seen_nothing_answers_as_the_shared_model_and_says_so(tmp_path: Path) -> None:
    """No examples, no classes held, no familiarity."""
    write_job(tmp_path, job(tmp_path, VEHICLE, samples=0))
    result = trainer.run_job(tmp_path)
    assert (result.choice.chosen, result.examples, sum(result.held)) == ("shared", 0, 0)
    assert not load_file(tmp_path / "votes.safetensors")["density"].any()


def test_a_refit_answers_no_proxy_set(tmp_path: Path) -> None:
    """Only the personal head."""
    write_job(tmp_path, job(tmp_path, VEHICLE, proxies=0))
    trainer.run_job(tmp_path)
    assert not (tmp_path / "votes.safetensors").exists()
    assert (tmp_path / "personal.safetensors").exists()


def test_jobs_learn_from_a_bounded_number_of_samples_spread_over_time() -> None:
    """The first and the last are among them."""
    samples = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(1), 50)
    assert trainer.thinned(samples, 50) is samples
    few = trainer.thinned(samples, 7)
    assert len(few) == 7
    np.testing.assert_array_equal(few.raw[[0, -1]], samples.raw[[0, -1]])


def test_wrong_files_are_errors_that_name_them(tmp_path: Path) -> None:
    """A payload without a head, a proxy set of another task, no proxy set, no job."""
    with pytest.raises(IncompatibleError, match=r"head\.weight"):
        trainer.shared_head(save({"w": np.zeros(3, np.float32)}))
    save_file({"raw": np.zeros((2, 5), np.float32)}, tmp_path / "proxy")
    with pytest.raises(DataError, match="takes"):
        trainer.proxy_raw(tmp_path / "proxy", VEHICLE)
    for content in (b"garbage", save({"other": np.zeros(1, np.float32)})):
        (tmp_path / "proxy").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            trainer.proxy_raw(tmp_path / "proxy", VEHICLE)
    for read in (read_job, read_result):
        with pytest.raises(StoreError, match=r"\.json"):
            read(tmp_path)
    assert trainer.main([str(tmp_path)]) == 1


def test_main_limits_itself_and_runs_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without the limits, which the next test sees at work."""
    granted: list[tuple[int, int]] = []
    monkeypatch.setattr(trainer, "limit_this_process", lambda nice, memory_mb: granted.append((nice, memory_mb)))
    write_job(tmp_path, job(tmp_path, VEHICLE, samples=30))
    assert trainer.main([str(tmp_path)]) == 0
    assert granted == [(0, 4096)]


def test_a_real_subprocess_stands_back_and_is_refused_too_much_memory(tmp_path: Path) -> None:
    """It lowers its priority, bounds its memory, offers itself first when memory runs out, and goes with its parent."""
    script = (
        "import os, resource\nfrom edge_client.trainer import limit_this_process\n"
        "limit_this_process(7, 200)\n"
        "print(os.nice(0), resource.getrlimit(resource.RLIMIT_DATA)[0])\n"
        "print(open('/proc/self/oom_score_adj').read().strip())\n"
        "try:\n    bytearray(400 << 20)\nexcept MemoryError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", str(200 << 20), "900", "refused"]
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 200 << 20


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


def lessons(folder: Path, code: str, artifact: Artifact | None) -> Lessons:
    """A device's lessons with a stand-in trainer."""
    config = device_config(folder, sources=[{"name": "x", "uri": "pack:///none"}])
    training = Training(folder / "jobs", 60, command(code))
    return Lessons(config, VEHICLE, training, lambda sha256: folder / sha256 / "data", lambda: artifact)


ARTIFACT = Artifact("nano", "depthwise", cut(b"t")[0], cut(b"w")[0], cut(b"g")[0], 1)
WRITE = """
import sys, json
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
from edge_models.head_weights import HeadWeights
folder = Path(sys.argv[1])
(folder / "personal.safetensors").write_bytes(HeadWeights(np.ones((6, 64), "f4"), np.zeros(6, "f4")).to_bytes())
votes = {"probabilities": np.full((2, 6), 1 / 6, "f4"), "density": np.float32([0.5, float("nan")])}
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
        assert unpack(done.report.votes.density).tolist() == [128, 0], "what is not finite is worth nothing"
    assert not list((tmp_path / "jobs").iterdir())
    fitted = made.refitted(5)
    assert fitted is not None
    assert fitted.choice.chosen == "personal"
    assert made.refitted(5) is None
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


def test_votes_of_nan_are_no_report(tmp_path: Path) -> None:
    """A forecast that is not finite never leaves the device."""
    result = TrainResult(choice=CHOICE, examples=1, held=())
    bad = np.full((2, 3), np.nan, np.float32)
    save_file({"mean": bad, "spread": bad, "density": np.ones(2, np.float32)}, tmp_path / "votes.safetensors")
    with pytest.raises(StoreError, match="NaN"):
        read_report(tmp_path, result, spec=SPEED, call=call(SPEED), release=1)


def test_a_trainer_goes_when_its_agent_is_killed(tmp_path: Path) -> None:
    """No orphan goes on burning the board's cores."""
    child_script = (
        "import time\nfrom edge_client.trainer import limit_this_process\nlimit_this_process(0, 1024)\n"
        "print(1, flush=True)\ntime.sleep(600)\n"
    )
    script = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child_script!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait(10)

    def gone() -> bool:
        try:
            return "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0]
        except OSError:
            return True

    begun = time.monotonic()
    wait_for(gone, "end of the orphan", within_s=10)
    assert time.monotonic() - begun < 10
