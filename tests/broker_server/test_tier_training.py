"""Where a tier's training begins: the last round, a checkpoint, or what its devices agree on."""

from __future__ import annotations

import shutil
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_server.bench import Bench, open_bench
from broker_server.candidate_files import save_tensors
from broker_server.distil_job import DistilJob, DistilSettings, TrunkSettings, write_job
from broker_server.distiller import anchor_lesson
from broker_server.strategies.trunk_sharing import Drift
from broker_server.strategies.weights import Array
from broker_server.tier_training import share_trunks, teach
from broker_server.trunks import Fused
from edge_models.students import build_student
from edge_models.students.arrays import arrays_of
from edge_models.tasks import load_task
from edge_models.trunk_changes import encode_change, trunk_of
from edge_protocol.ids import DeviceId
from edge_protocol.trunks import TrunkChange
from export.payload import weights_payload
from export.template import build_template
from tests.fakes.round_state import save_series

SPEC = load_task("speed")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A round of one step on fresh students, with what is needed to share trunks."""
    anchors, proxies, validation = (save_series(tmp_path / f"{seed}.npz", seed) for seed in range(3))
    current = tmp_path / "1"
    student = build_student(SPEC, "nano")
    for tier in ("nano", "small", "base"):
        save_tensors(current / f"{tier}.safetensors", build_student(SPEC, tier).state_dict())
    payload = weights_payload(student, build_template(student, SPEC.input.shape))
    (current / "nano.weights.safetensors").write_bytes(payload)
    settings = DistilSettings(steps=2, checkpoint_steps=1, learning_rate=1e-9)
    trunk = TrunkSettings(momentum=0.0)
    packs = DistilJob(
        task="speed", round=1, release=1, settings=settings, anchors=anchors, proxies=proxies, validation=validation
    )
    job = msgspec.structs.replace(packs, current=str(current), trunk=trunk)
    write_job(tmp_path / "speed-1", job, {})
    return open_bench(tmp_path / "speed-1")


def fused(bench: Bench, size: float) -> Fused:
    """Devices that agree on one number for every weight of the trunk."""
    trunk = trunk_of(arrays_of(bench.current["nano"]))
    return Fused({name: np.full(value.shape, size, np.float32) for name, value in trunk.items()}, Drift(), 2)


def taught(bench: Bench, agreed: Fused | None) -> dict[str, Array]:
    """The student after the round's steps, at a rate at which they change nothing."""
    lesson = anchor_lesson(bench.asked.anchors, SPEC, weight=1.0, batch=8)
    return arrays_of(teach("nano", bench, [lesson], lambda _: None, agreed).average)


def test_training_begins_at_what_the_devices_agree_on(bench: Bench) -> None:
    """The trunk is moved once, the head is not; without devices nothing moves."""
    before = arrays_of(bench.current["nano"])
    agreed = fused(bench, 0.01)
    for each in (agreed, None):
        shutil.rmtree(bench.folder / "checkpoint", ignore_errors=True)
        after = taught(bench, each)
        for name, value in before.items():
            moved = agreed.change.get(name, 0) if each else 0
            np.testing.assert_allclose(np.subtract(after[name], value), moved, atol=1e-6)


def test_a_worker_that_goes_on_from_its_checkpoint_does_not_move_the_trunk_twice(bench: Bench) -> None:
    """The checkpoint holds the moved trunk already."""
    first = taught(bench, fused(bench, 0.01))
    again = taught(bench, fused(bench, 0.01))
    assert all((again[name] == value).all() for name, value in first.items())


def test_a_job_fuses_what_its_devices_sent(bench: Bench) -> None:
    """Changes of the release's payload count, and the worker says how many; a job that does not ask has none."""
    events: list[object] = []
    payload = (Path(bench.job.current or "") / "nano.weights.safetensors").read_bytes()
    data = encode_change({name: np.full_like(v, 0.01) for name, v in fused(bench, 0.01).change.items()})
    sent = {DeviceId(name): TrunkChange(sha256(payload).hexdigest(), 4, data) for name in "ab"}
    found, said = share_trunks(bench, sent, events.append)
    assert (set(found), said, len(events)) == ({"nano"}, {"a": "", "b": ""}, 1)
    silent = Bench(**{**vars(bench), "job": msgspec.structs.replace(bench.job, trunk=None)})
    assert share_trunks(silent, sent, events.append) == ({}, {})
