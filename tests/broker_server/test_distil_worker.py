"""The worker: one real process for a first release, the rounds after it in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file

from broker_server.distil_job import DistilJob, DistilResult, DistilSettings, read_result, write_job
from broker_server.distil_worker import main
from broker_server.judge import judge
from broker_server.proxy_set import Asked, build, load_samples, mingle
from broker_server.releases import variants_in
from broker_server.round_manifest import MANIFEST, decoded
from devices.packs import ImagePack, SeriesPack, save_pack
from devices.runners.ort_runner import OrtRunner
from edge_models.tasks import load_task
from edge_protocol.delta import make_delta
from edge_protocol.errors import DistillationError
from edge_protocol.ids import DeviceId
from edge_protocol.manifest import SCALE
from edge_protocol.messages import KnowledgeReport
from edge_protocol.task import TIERS
from export.golden import check_golden
from tests.broker_server.strategies.ballots import forecast_votes

SPEED = load_task("speed")
SETTINGS = DistilSettings(first_steps=8, steps=8, checkpoint_steps=4, seed=1)
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
FILES = {"state.safetensors", "template.onnx", "weights.safetensors", "golden.safetensors"}


def save_series(path: Path, seed: int) -> str:
    """Save a noisy daily pattern of two sensors."""
    time_s = 300.0 * np.arange(90)
    values = 50 + 8 * np.sin(time_s / 9000)[:, None] + np.random.default_rng(seed).normal(0, 1, (90, 2))
    pack = SeriesPack(values=values.astype(np.float32), time_s=time_s, interval_s=300, sensors=("a", "b"), unit="mph")
    save_pack(path, pack, title="two sensors")
    return str(path)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistilJob]:
    """A finished first release, made by a real process: the folder of jobs, and the job."""
    home = tmp_path_factory.mktemp("server")
    anchors, proxies, validation = (save_series(home / f"{seed}.npz", seed) for seed in range(3))
    job = DistilJob(
        task="speed", round=0, release=0, settings=SETTINGS, anchors=anchors, proxies=proxies, validation=validation
    )
    write_job(home / "jobs" / "speed-0", job, {})
    command = [sys.executable, "-m", "broker_server.distil_worker", str(home / "jobs" / "speed-0")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    stages = [json.loads(line)["stage"] for line in done.stdout.splitlines()]
    assert stages == ["train", "train", "scored"] * 3
    return home, job


def round_job(first: tuple[Path, DistilJob], **changes: object) -> DistilJob:
    """The round after the first release."""
    home, job = first
    current = home / "current"
    current.mkdir(exist_ok=True)
    for tier in TIERS:
        made = home / "jobs" / "speed-0" / "candidate" / tier
        shutil.copy(made / "state.safetensors", current / f"{tier}.safetensors")
        shutil.copy(made / "weights.safetensors", current / f"{tier}.weights.safetensors")
    proxy = sha256(build(asked(job).samples)).hexdigest()
    return msgspec.structs.replace(job, round=1, release=1, proxy=proxy, current=str(current), **changes)


def asked(job: DistilJob) -> Asked:
    """What devices answer: the proxies, and some anchors among them."""
    proxies, anchors = load_samples(job.proxies, SPEED), load_samples(job.anchors, SPEED)
    return mingle(proxies, anchors, share=SETTINGS.trust_share, salt=b"")


def report(job: DistilJob, **changes: object) -> KnowledgeReport:
    """A device's forecasts: nothing changes."""
    n = len(asked(job).samples)
    votes = forecast_votes([0.3] * n, horizons=3)
    said = KnowledgeReport("speed", SPEED.label_space, job.round, 1, job.proxy, 100, votes)
    return msgspec.structs.replace(said, **changes)


def run(
    folder: Path, job: DistilJob, reports: Mapping[DeviceId, KnowledgeReport]
) -> tuple[int, list[Mapping[str, object]]]:
    """Write a job and carry it out here; return the exit code and what was said."""
    events: list[Mapping[str, object]] = []
    write_job(folder, job, reports)
    return main([str(folder)], events.append), events


def test_a_first_release_has_every_file_and_runs(first: tuple[Path, DistilJob]) -> None:
    """Each tier's files are there, the golden answers hold in ONNX Runtime, and the judge accepts."""
    folder = first[0] / "jobs" / "speed-0"
    result = read_result(folder)
    for tier in TIERS:
        place = folder / "candidate" / tier
        assert {path.name for path in place.iterdir()} == FILES
        with OrtRunner((place / "template.onnx").read_bytes(), (place / "weights.safetensors").read_bytes()) as runner:
            check_golden(runner, (place / "golden.safetensors").read_bytes())
        assert "current" not in result.metrics[tier]
        assert result.parameters[tier] > 1000
    assert judge(result).accepted
    assert result.validation == sha256(Path(first[1].validation).read_bytes()).hexdigest()


def test_a_round_hears_good_reports_and_names_bad_ones(first: tuple[Path, DistilJob]) -> None:
    """One good report counts, an old proxy set and NaN are refused with their reasons, and both scores are there."""
    job = round_job(first)
    folder = first[0] / "jobs" / "speed-1"
    nan = np.float16(np.nan).tobytes()
    reports = {"good": report(job), "old": report(job, proxy="0" * 64), "nan": report(job, round=0)}
    write_job(folder, job, {DeviceId(name): said for name, said in reports.items()})
    broken = folder / "reports" / "nan.report"
    broken.write_bytes(broken.read_bytes().replace(np.float16(0.3).tobytes(), nan))
    events: list[Mapping[str, object]] = []
    assert main([str(folder)], events.append) == 0
    result = read_result(folder)
    assert result.teacher["reports"] == 1
    assert set(result.devices) == {"old", "nan"}
    assert "proxy set" in result.devices["old"]
    assert "NaN" in result.devices["nan"]
    assert all(set(scores) == {"current", "candidate"} for scores in result.metrics.values())
    assert result.metrics["nano"]["current"] == read_result(first[0] / "jobs" / "speed-0").metrics["nano"]["candidate"]


def test_a_candidate_keeps_the_scales_of_the_release_before(first: tuple[Path, DistilJob]) -> None:
    """Then devices fetch a small delta; a server that is set to fp16 sends no scale, and no delta of the one before."""
    job = round_job(first)
    before = (Path(job.current or "") / "nano.weights.safetensors").read_bytes()
    made = []
    for form in ("int8", "fp16"):
        folder = first[0] / "jobs" / f"in-{form}"
        plan = msgspec.structs.replace(job.settings, payload=form)
        assert run(folder, msgspec.structs.replace(job, settings=plan), {DeviceId("a"): report(job)})[0] == 0
        made.append((folder / "candidate" / "nano" / "weights.safetensors").read_bytes())
    old, new = load(before), load(made[0])
    same = [(old[name] == new[name]).mean() for name in old if name.endswith(SCALE)]
    assert same
    assert np.mean(same) > 0.9
    delta = make_delta(before, made[0])
    assert delta is not None
    assert len(delta) < 0.8 * len(made[0])
    assert make_delta(before, made[1]) is None
    assert {array.dtype for array in load(made[1]).values()} == {np.dtype(np.float16)}


def test_variants_are_left_where_they_keep_their_limits(first: tuple[Path, DistilJob]) -> None:
    """Each is told of; those that are missing say why, and the round's manifest depends on none."""
    job = round_job(first)
    folder = first[0] / "jobs" / "variants"
    plan = msgspec.structs.replace(job.settings, variants=("int8-cpu",))
    code, events = run(folder, msgspec.structs.replace(job, settings=plan), {DeviceId("a"): report(job)})
    assert code == 0
    told = {event["tier"]: event["missing"] for event in events if event["stage"] == "variant"}
    assert set(told) == set(TIERS)
    for tier, missing in told.items():
        assert variants_in(folder / "candidate" / str(tier)) == ([] if missing else ["int8-cpu"])
    names = decoded((folder / MANIFEST).read_bytes(), "manifest").outputs
    assert names
    assert not any("int8-cpu" in name for name in names)


def test_a_killed_round_goes_on_where_it_was(first: tuple[Path, DistilJob]) -> None:
    """A worker that finds checkpoints of a killed one takes only the steps that are left; the bytes are the same."""
    job = round_job(first)
    whole, cut = first[0] / "jobs" / "whole", first[0] / "jobs" / "cut"
    assert run(whole, job, {DeviceId("a"): report(job)})[0] == 0

    class KilledError(Exception):
        """Stands for the kill."""

    def die(event: Mapping[str, object]) -> None:
        if event.get("tier") == "small" and event.get("step") == 8:
            raise KilledError

    write_job(cut, job, {DeviceId("a"): report(job)})
    with pytest.raises(KilledError):
        main([str(cut)], die)
    code, events = run(cut, job, {DeviceId("a"): report(job)})
    steps = [event["step"] for event in events if event["stage"] == "train"]
    assert (code, steps) == (0, [8, 4, 8])
    for tier in TIERS:
        files = (folder / "candidate" / tier / "training.safetensors" for folder in (whole, cut))
        assert len({path.read_bytes() for path in files}) == 1


def test_a_damaged_checkpoint_costs_its_steps_only(first: tuple[Path, DistilJob]) -> None:
    """Half a checkpoint, as a power cut leaves it, is thrown away; the round ends as if there had been none."""
    job, folder = round_job(first), first[0] / "jobs" / "damaged"
    write_job(folder, job, {})
    assert folder.stat().st_mode & 0o077 == 0, "the salt that hides the anchors is nobody else's"
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "nano.safetensors").write_bytes(b"\x10\x00\x00")
    code, events = run(folder, job, {})
    assert code == 0
    assert [event["step"] for event in events if event.get("tier") == "nano" and event["stage"] == "train"] == [4, 8]


def test_training_goes_on_from_round_to_round(first: tuple[Path, DistilJob], tmp_path: Path) -> None:
    """With the training state of the round before, the optimiser's step count goes on."""
    job = round_job(first)
    before = first[0] / "jobs" / "before"
    assert run(before, job, {DeviceId("a"): report(job)})[0] == 0
    for tier in TIERS:
        for name, kept in (("state", tier), ("training", f"{tier}.training")):
            shutil.copy(before / "candidate" / tier / f"{name}.safetensors", tmp_path / f"{kept}.safetensors")
    later = first[0] / "jobs" / "later"
    assert run(later, msgspec.structs.replace(job, current=str(tmp_path)), {DeviceId("a"): report(job)})[0] == 0
    assert int(load_file(later / "candidate" / "nano" / "training.safetensors")["step"]) == 16


def test_rounds_are_reproducible(first: tuple[Path, DistilJob]) -> None:
    """The same job done twice leaves the same bytes and scores."""
    job = round_job(first)
    results: list[tuple[DistilResult, bytes]] = []
    for name in ("again-1", "again-2"):
        folder = first[0] / "jobs" / name
        assert run(folder, job, {DeviceId("a"): report(job)})[0] == 0
        results.append((read_result(folder), (folder / "candidate" / "base" / "weights.safetensors").read_bytes()))
    assert results[0] == results[1]


def test_a_template_of_another_version_is_traced_again(first: tuple[Path, DistilJob]) -> None:
    """A kept template that no longer fits the student is replaced, not trusted."""
    kept = next((first[0] / "jobs" / "templates").glob("*-mlp-*.onnx"))
    good = kept.read_bytes()
    other = next((first[0] / "jobs" / "templates").glob("*-tcn-*.onnx"))
    kept.write_bytes(other.read_bytes())
    folder = first[0] / "jobs" / "traced"
    assert run(folder, round_job(first), {})[0] == 0
    assert kept.read_bytes() == good


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anchors": "/nowhere/anchors.npz"}, "anchors.npz"),
        ({"current": "/nowhere"}, "nano.safetensors"),
        ({"proxy": "0" * 64}, "changed since round 1 was called"),
        ({"task": "sped"}, "did you mean 'speed'"),
        ({"settings": DistilSettings(strategy="magic")}, "magic"),
        pytest.param({"settings": DistilSettings(device="cuda")}, "set it to auto or cpu", marks=NO_CUDA),
    ],
)
def test_a_job_that_cannot_be_done_says_why(
    first: tuple[Path, DistilJob], tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    """Exit code 1, a last event, and an `error.json` whose message reaches whoever reads the result."""
    job = msgspec.structs.replace(round_job(first), **changes)
    code, events = run(tmp_path / "job", job, {})
    assert code == 1
    assert events[-1]["stage"] == "failed"
    with pytest.raises(DistillationError, match=message.replace(".", r"\.")):
        read_result(tmp_path / "job")


def test_unlabelled_anchors_are_refused(tmp_path: Path) -> None:
    """Anchors without labels cannot teach a first release."""
    vehicle = load_task("vehicle")
    images = np.zeros((4, 32, 32, 3), np.uint8)
    save_pack(tmp_path / "a.npz", ImagePack.of(images, classes=vehicle.labels), title="unlabelled")
    path = str(tmp_path / "a.npz")
    job = DistilJob(task="vehicle", round=0, release=0, settings=SETTINGS, anchors=path, proxies=path, validation=path)
    assert run(tmp_path / "job", job, {})[0] == 1
    with pytest.raises(DistillationError, match="must be"):
        read_result(tmp_path / "job")


def test_a_second_try_forgets_the_first_error(first: tuple[Path, DistilJob]) -> None:
    """A job that failed and then succeeds has a result and no error."""
    folder, job = first[0] / "jobs" / "second", round_job(first)
    assert run(folder, msgspec.structs.replace(job, current="/nowhere"), {})[0] == 1
    assert run(folder, job, {})[0] == 0
    assert read_result(folder).parameters


def test_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a folder the usage is shown; a folder that does not exist is an error without a trace."""
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 1
    assert json.loads(capsys.readouterr().out)["kind"] == "DistillationError"
    assert not (tmp_path / "none").exists()
