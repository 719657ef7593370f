"""How a device's samples change a release's trunk: what is sent, what is not, and what stays as it was."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from devices.runners.payload import read_payload
from edge_client import trainer
from edge_client.jobs import TrainJob, TrainResult, write_job
from edge_client.knowledge import read_report
from edge_client.trunk_lesson import MAX_INPUT_BYTES, leave_change, trunk_change
from edge_models.losses import gaussian_nll
from edge_models.samples import Samples
from edge_models.students.arrays import arrays_of, with_arrays
from edge_models.tasks import plugin_of
from edge_models.trunk_changes import decode_change, length, trunk_of
from edge_protocol.errors import IncompatibleError, StoreError
from edge_protocol.task import TIERS, TaskSpec, Tier
from edge_protocol.trunks import TrunkAsk
from export.released import released_student
from tests.edge_client.test_trainer import SPEED, VEHICLE, call, job
from tests.fakes.small_centre import artifact_files, int8_files

ASK = TrunkAsk(steps=6, batch=16, learning_rate=0.003, norm=0.5)


def own(spec: TaskSpec, count: int = 64) -> Samples:
    """A device's samples."""
    return plugin_of(spec).simulate(spec, np.random.default_rng(8), count)


def as_they_are(raw: np.ndarray) -> np.ndarray:
    """Preparation of samples that need none."""
    return np.ascontiguousarray(raw, np.float32)


def asked(folder: Path, spec: TaskSpec, ask: TrunkAsk | None = ASK, **more: int) -> TrainJob:
    """A whole job that asks for the trunk's change."""
    return msgspec.structs.replace(job(folder, spec, **more), trunk=ask)


@pytest.mark.parametrize("tier", TIERS)
def test_a_release_can_be_trained_and_its_own_answers_get_better(tier: Tier) -> None:
    """With the change added, the release's student fits the device's windows better; head and release stay."""
    payload = artifact_files("speed", tier).weights
    student, samples = released_student(read_payload(payload), SPEED, tier), own(SPEED, 256)
    before = arrays_of(student)
    x = as_they_are(samples.raw)
    heard: list[int] = []
    ask = TrunkAsk(30, 32, 0.003, 1.0)
    change = trunk_change(student, x, samples.targets, SPEED, ask, 0, tick=lambda: heard.append(1))
    assert len(heard) == 30, "a caller that measures the job hears of every step"
    assert set(change) == set(trunk_of(before))
    moved = with_arrays(student, {name: np.add(before[name], value) for name, value in change.items()})
    truth = torch.from_numpy(samples.targets.astype(np.float32))
    with torch.inference_mode():
        old, new = (float(gaussian_nll(each(torch.from_numpy(x))[1], truth)) for each in (student, moved))
    assert new < old
    assert all((arrays_of(student)[name] == value).all() for name, value in before.items())


def test_a_change_is_no_longer_than_asked_and_the_same_each_time() -> None:
    """Cut to a thousandth of the trunk's length; a seed gives a change, another seed another."""
    tensors = read_payload(artifact_files("speed").weights)
    student, samples = released_student(tensors, SPEED, "nano"), own(SPEED)
    short = msgspec.structs.replace(ASK, norm=0.001)
    first, same, other = (
        trunk_change(student, as_they_are(samples.raw), samples.targets, SPEED, short, seed) for seed in (1, 1, 2)
    )
    assert length(first) == pytest.approx(0.001 * length(trunk_of(tensors)), rel=1e-4)
    assert all((first[name] == value).all() for name, value in same.items())
    assert any((first[name] != value).any() for name, value in other.items())


@pytest.mark.parametrize("spec", [VEHICLE, SPEED], ids=lambda spec: spec.name)
def test_a_job_that_asks_ends_in_a_report_with_the_change(tmp_path: Path, spec: TaskSpec) -> None:
    """The report names the payload that training began at, and holds exactly the trunk's tensors, in few bytes."""
    write_job(tmp_path, asked(tmp_path, spec))
    result = trainer.run_job(tmp_path)
    assert result.no_trunk == ""
    report = read_report(tmp_path, result, spec=spec, call=call(spec), release=1)
    assert report.trunk is not None
    weights = artifact_files(spec.name).weights
    assert (report.trunk.base, report.trunk.steps) == (sha256(weights).hexdigest(), 6)
    change, trunk = decode_change(report.trunk.data), trunk_of(read_payload(weights))
    assert {name: value.shape for name, value in change.items()} == {n: v.shape for n, v in trunk.items()}
    assert 0 < length(change) <= 1.01 * ASK.norm * length(trunk)
    assert len(report.trunk.data) < 1.3 * sum(value.size for value in trunk.values())


def test_a_job_that_does_not_ask_sends_none(tmp_path: Path) -> None:
    """Without a wish there is no file and no field."""
    write_job(tmp_path, asked(tmp_path, SPEED, None))
    result = trainer.run_job(tmp_path)
    assert read_report(tmp_path, result, spec=SPEED, call=call(SPEED), release=1).trunk is None


def test_nothing_to_learn_from_costs_the_change_and_not_the_votes(tmp_path: Path) -> None:
    """A device without a single target says so in its result, and votes."""
    write_job(tmp_path, asked(tmp_path, SPEED, samples=0))
    result = trainer.run_job(tmp_path)
    assert "no sample has a label" in result.no_trunk
    report = read_report(tmp_path, result, spec=SPEED, call=call(SPEED), release=1)
    assert (report.trunk, report.votes.samples) == (None, 12)


def test_a_variant_that_cannot_be_trained_is_named(tmp_path: Path) -> None:
    """The weights of an INT8 variant are no student's: no change, and the reason."""
    with pytest.raises(IncompatibleError, match="neither answers with nor trains"):
        released_student(read_payload(int8_files().weights), VEHICLE, "nano")
    plan = asked(tmp_path, VEHICLE)
    why = leave_change(tmp_path, plan, int8_files().weights, own(VEHICLE), as_they_are)
    assert why.startswith("IncompatibleError: ")


def test_weights_that_are_not_finite_are_no_start(tmp_path: Path) -> None:
    """A damaged payload is a reason, and nothing is left behind."""
    tensors = load(artifact_files("speed").weights)
    name = next(name for name in tensors if name.startswith("trunk") and tensors[name].dtype == np.float16)
    tensors[name] = np.full_like(tensors[name], np.nan)
    why = leave_change(tmp_path, asked(tmp_path, SPEED), save(tensors), own(SPEED), as_they_are)
    assert "not a finite number" in why
    assert not (tmp_path / "trunk.msgpack").exists()


def test_samples_beyond_the_memory_that_is_granted_are_left_out(tmp_path: Path) -> None:
    """Of more samples than the bound holds, every so-many-th is prepared."""
    few, many = own(VEHICLE, 8), 9000
    samples = few.take(np.arange(many) % 8)
    seen: list[int] = []

    def prepare(raw: np.ndarray) -> np.ndarray:
        seen.append(4 * raw[0].size * len(raw))
        return np.ascontiguousarray(raw[:16].transpose(0, 3, 1, 2), np.float32)

    leave_change(tmp_path, asked(tmp_path, VEHICLE), artifact_files().weights, samples, prepare)
    assert 0 < seen[0] <= MAX_INPUT_BYTES < 4 * samples.raw[0].size * many


def test_a_damaged_change_is_no_report(tmp_path: Path) -> None:
    """What lies in a job's folder and is no change is named; the job fails as for damaged votes."""
    write_job(tmp_path, asked(tmp_path, SPEED))
    result: TrainResult = trainer.run_job(tmp_path)
    (tmp_path / "trunk.msgpack").write_bytes(b"\x93\x01")
    with pytest.raises(StoreError, match="the trunk's change"):
        read_report(tmp_path, result, spec=SPEED, call=call(SPEED), release=1)
