"""What the training subprocess fits and says, and how it stands back."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import msgspec
import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save, save_file

from devices.preprocess import Preprocess, PreprocessConfig
from edge_client import trainer
from edge_client.config import ReplayConfig, TrainConfig
from edge_client.hard_examples import LISTED
from edge_client.installed import HeadChoice
from edge_client.jobs import TrainJob, TrainResult, proxy_raw, read_job, read_result, shared_head, write_job
from edge_client.knowledge import read_report
from edge_client.labels import series_samples
from edge_client.replay import Kept, ReplayStore
from edge_models.head_weights import HeadWeights
from edge_models.ratio_head import RatioSettings
from edge_models.samples import Samples
from edge_models.scales import Scale
from edge_models.tasks import load_task, plugin_of
from edge_protocol.arrays import unpack
from edge_protocol.blobs import cut
from edge_protocol.errors import DataError, IncompatibleError, StoreError
from edge_protocol.messages import ClassVotes, ForecastVotes, RoundCall
from edge_protocol.task import ImageInput, TaskSpec
from tests.edge_models.test_habits import days, road_pack
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
    write_job(tmp_path, msgspec.structs.replace(job(tmp_path, VEHICLE), watts=5.0))
    result = trainer.run_job(tmp_path)
    assert result == read_result(tmp_path)
    assert result.choice.chosen == "personal"
    assert result.choice.personal["accuracy"] > result.choice.shared["accuracy"]
    assert (result.examples, sum(result.held)) == (120, 6)
    assert result.cost is not None
    assert result.cost.steps > 2 * RatioSettings().steps, "both halves of the head that answers the round, and others"
    assert len(result.hard) == LISTED
    assert {each.sample for each in result.hard} <= {f"s-{at}" for at in range(120)}
    assert result.cost.energy_j == pytest.approx(5 * result.cost.cpu_s)
    HeadWeights.from_bytes((tmp_path / "personal.safetensors").read_bytes())
    report = read_report(tmp_path, result, spec=VEHICLE, call=call(VEHICLE), release=1)
    assert isinstance(report.votes, ClassVotes)
    assert report.votes.samples == 12
    assert (report.round, report.release, report.examples) == (3, 1, 120)
    assert unpack(report.votes.density).any(), "proxies like the device's own samples are likely among them"


def test_a_sensor_learns_and_answers_the_proxy_set(tmp_path: Path) -> None:
    """Mean and spread per horizon, scored in the task's unit."""
    write_job(tmp_path, job(tmp_path, SPEED))
    result = trainer.run_job(tmp_path)
    assert "mae" in result.choice.shared
    assert result.held == ()
    report = read_report(tmp_path, result, spec=SPEED, call=call(SPEED), release=1)
    assert isinstance(report.votes, ForecastVotes)
    assert unpack(report.votes.mean).shape == (12, 3)


def test_habits_serve_the_device_and_leave_no_trace_in_its_report(tmp_path: Path) -> None:
    """With its sensors' names a device serves a head with habits; what it tells of the proxies is the same without."""
    values, times = days(4)
    pack = road_pack(values, times)
    told = []
    for folder, named in ((tmp_path / "named", True), (tmp_path / "nameless", False)):
        folder.mkdir()
        asked = msgspec.structs.replace(
            job(folder, SPEED, samples=0), replay=str(folder / "sensors.db"), max_samples=4000
        )
        store = ReplayStore(folder / "sensors.db", 100_000_000)
        kept = series_samples(pack, SPEED, Scale.fit(values))
        store.add(each if named else replace(each, side=None) for each in kept)
        store.close()
        write_job(folder, asked)
        result = trainer.run_job(folder)
        assert result.choice.chosen == "personal"
        head = HeadWeights.from_bytes((folder / "personal.safetensors").read_bytes())
        assert (head.side, head.habits is not None) == ((5, True) if named else (0, False))
        told.append((folder / "votes.safetensors").read_bytes())
    assert told[0] == told[1]


def test_a_device_that_has_seen_nothing_is_silent(tmp_path: Path) -> None:
    """No examples, no classes held, no odds."""
    write_job(tmp_path, job(tmp_path, VEHICLE, samples=0))
    result = trainer.run_job(tmp_path)
    assert (result.choice.chosen, result.examples, sum(result.held)) == ("shared", 0, 0)
    assert not load_file(tmp_path / "votes.safetensors")["odds"].any()


def test_with_privacy_nothing_that_leaves_is_exact(tmp_path: Path) -> None:
    """Odds, classes held and examples are worked out of noisy totals of all labels; two runs of one job differ."""
    write_job(tmp_path, msgspec.structs.replace(job(tmp_path, VEHICLE, samples=400), sigma=0.7, max_samples=50))
    runs = []
    for _ in range(2):
        result = trainer.run_job(tmp_path)
        runs.append((result.examples, load_file(tmp_path / "votes.safetensors")["odds"]))
        report = read_report(tmp_path, result, spec=VEHICLE, call=call(VEHICLE), release=1)
        assert (report.examples, unpack(report.votes.held).tolist()) == (result.examples, list(result.held))
        assert 300 < result.examples < 500
        assert sum(result.held) >= 5
    assert (runs[0][1] != runs[1][1]).any()
    assert any(trainer.run_job(tmp_path).examples != 400 for _ in range(40)), "noise rounds to nothing now and then"


def test_with_much_noise_a_device_speaks_of_no_class(tmp_path: Path) -> None:
    """No count is surely above the least examples."""
    write_job(tmp_path, msgspec.structs.replace(job(tmp_path, VEHICLE), sigma=1000.0))
    result = trainer.run_job(tmp_path)
    assert (result.examples, sum(result.held)) == (0, 0)
    assert not load_file(tmp_path / "votes.safetensors")["odds"].any()
    assert result.choice.chosen == "personal", "its own head sees no noise"


def test_a_refit_answers_no_proxy_set(tmp_path: Path) -> None:
    """Only the personal head."""
    write_job(tmp_path, job(tmp_path, VEHICLE, proxies=0))
    trainer.run_job(tmp_path)
    assert not (tmp_path / "votes.safetensors").exists()
    assert (tmp_path / "personal.safetensors").exists()


def test_a_store_full_of_unlabelled_frames_costs_a_job_no_label(tmp_path: Path) -> None:
    """Head, report and class means are of every label, for unlabelled frames only fill up the list of hard examples."""
    write_job(tmp_path, msgspec.structs.replace(job(tmp_path, VEHICLE, samples=60), max_samples=100, prototype_k=3))
    store = ReplayStore(tmp_path / "replay.db", 100_000_000)
    blank = np.zeros((32, 32, 3), np.uint8)
    store.add(Kept(f"frame-{at}", 1.8e9 + at, blank) for at in range(2000))
    store.close()
    result = trainer.run_job(tmp_path)
    assert (result.examples, sum(result.held)) == (60, 6)
    assert result.choice.n_valid >= 10, "a quarter of each class"
    assert load_file(tmp_path / "prototypes.safetensors")["counts"].sum() == 60
    assert any(each.sample.startswith("frame-") for each in result.hard)


def test_more_labels_than_a_job_may_have_keep_their_rare_class(tmp_path: Path) -> None:
    """The class is spoken of, and the head that answers the round has its examples."""
    asked = job(tmp_path, VEHICLE, samples=0)
    made = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(5), 300)
    rare = np.flatnonzero(made.targets == 5)[:3]
    store = ReplayStore(tmp_path / "replay.db", 100_000_000)
    common = np.flatnonzero(made.targets != 5)
    store.add(Kept(f"s-{at}", float(at), made.raw[at], int(made.targets[at])) for at in (*common, *rare))
    store.close()
    write_job(tmp_path, msgspec.structs.replace(asked, max_samples=40))
    result = trainer.run_job(tmp_path)
    assert (result.examples, result.held) == (40, (1, 1, 1, 1, 1, 1))
    assert load_file(tmp_path / "votes.safetensors")["odds"][:, 5].any()


@pytest.mark.parametrize(("size", "sigma"), [(3e38, 0.0), (3e38, 1.9), (1e15, 1.9)])
def test_one_frame_that_the_trunk_makes_nothing_finite_of_decides_nothing(
    tmp_path: Path, size: float, sigma: float
) -> None:
    """Heads and report are made without it, with privacy or without: an error would tell that the image was there."""
    asked = msgspec.structs.replace(job(tmp_path, VEHICLE, samples=60), sigma=sigma)
    (tmp_path / "template").write_bytes(blinded(artifact_files().template, size))
    write_job(tmp_path, asked)
    results = [trainer.run_job(tmp_path)]
    store = ReplayStore(tmp_path / "replay.db", 100_000_000)
    store.add([Kept("white", 70.0, np.full((32, 32, 3), 255, np.uint8), 2)])
    store.close()
    results.append(trainer.run_job(tmp_path))
    assert [result.left_out for result in results] == [0, 1]
    assert results[0].choice == results[1].choice
    report = read_report(tmp_path, results[1], spec=VEHICLE, call=call(VEHICLE), release=1)
    if not sigma:
        assert report.examples == 60


def blinded(template: bytes, size: float) -> bytes:
    """A student whose features are `size`² for a white image, and as they were for any other."""
    model = onnx.load_from_string(template)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["inner" if name == "features" else name for name in names]
    assert isinstance(VEHICLE.input, ImageInput)
    white = Preprocess(VEHICLE.input).batch(np.full((1, 32, 32, 3), 255, np.uint8))
    constants = {"white": -white.min() + 0.5, "size": size, "axes": [1, 2, 3]}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value, np.int64 if name == "axes" else np.float32), name)
        for name, value in constants.items()
    )
    make = onnx.helper.make_node
    model.graph.node.extend(
        [
            make("ReduceMin", ["input", "axes"], ["least"], keepdims=0),
            make("Add", ["least", "white"], ["lit"]),
            make("Relu", ["lit"], ["over"]),
            make("Mul", ["over", "size"], ["large"]),
            make("Mul", ["large", "size"], ["huge"]),
            make("Unsqueeze", ["huge", "last"], ["wide"]),
            make("Add", ["inner", "wide"], ["features"]),
        ]
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "last"))
    return bytes(model.SerializeToString())


def test_wrong_files_are_errors_that_name_them(tmp_path: Path) -> None:
    """A payload without a head, a proxy set of another task, no proxy set, no job."""
    with pytest.raises(IncompatibleError, match=r"head\.weight"):
        shared_head(save({"w": np.zeros(3, np.float32)}))
    save_file({"raw": np.zeros((2, 5), np.float32)}, tmp_path / "proxy")
    with pytest.raises(DataError, match="takes"):
        proxy_raw(tmp_path / "proxy", VEHICLE)
    for content in (b"garbage", save({"other": np.zeros(1, np.float32)})):
        (tmp_path / "proxy").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            proxy_raw(tmp_path / "proxy", VEHICLE)
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
    assert done.stdout.split() == [str(min(os.nice(0) + 7, 19)), str(200 << 20), "900", "refused"]
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 200 << 20


def least_memory_mb() -> int:
    """The lowest bound that a device's configuration takes."""
    (least,) = (meta.ge for meta in get_type_hints(TrainConfig, include_extras=True)["memory_mb"].__metadata__)
    return int(least)


def run_bounded(folder: Path) -> subprocess.CompletedProcess[str]:
    """The job as the agent starts it."""
    command, environment = [sys.executable, "-m", "edge_client.trainer", str(folder)], {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True, check=False)


def test_a_job_of_the_defaults_fits_into_the_least_memory_that_can_be_set(tmp_path: Path) -> None:
    """With a full replay store and every type of head."""
    config, budget = TrainConfig(), ReplayConfig().budget_bytes
    asked = job(tmp_path, VEHICLE, proxies=500, samples=100)
    store = ReplayStore(tmp_path / "replay.db", budget)
    raw = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    store.add(Kept(f"f-{at}", 1.8e9 + at, raw, at % 6) for at in range(budget // raw.nbytes))
    store.close()
    bounded = msgspec.structs.replace(
        asked,
        memory_mb=least_memory_mb(),
        epochs=config.epochs,
        max_samples=config.max_samples,
        heads=("bias", "linear", "adapter", "mlp"),
    )
    write_job(tmp_path, bounded)
    done = run_bounded(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_result(tmp_path).examples == config.max_samples


def test_a_job_that_needs_more_memory_says_in_one_line_what_to_do(tmp_path: Path) -> None:
    """Here a proxy set takes more than all of it."""
    asked = job(tmp_path, VEHICLE, samples=20)
    write_job(tmp_path, msgspec.structs.replace(asked, memory_mb=least_memory_mb()))
    size = least_memory_mb() << 20
    shape = [size // 3072, 32, 32, 3]
    header = msgspec.json.encode({"raw": {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}})
    with (tmp_path / "proxy").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    done = run_bounded(tmp_path)
    said = f"training needs more memory than {least_memory_mb()} MB: raise train.memory_mb"
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(said)


def test_votes_of_nan_are_no_report(tmp_path: Path) -> None:
    """A forecast that is not finite never leaves the device."""
    result = TrainResult(choice=CHOICE, examples=1, held=())
    bad = np.full((2, 3), np.nan, np.float32)
    save_file({"mean": bad, "spread": bad}, tmp_path / "votes.safetensors")
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
