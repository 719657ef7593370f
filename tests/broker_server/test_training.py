"""Training that goes on from round to round, and from a file."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from broker_server.distiller import anchor_lesson
from broker_server.training import Training, compute_device, mixed
from edge_models.students import build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import DistillationError, NotReadyError

SPEED = load_task("speed")
CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
"""Torch's own compiler says so of itself."""


def steps(training: Training, count: int) -> Training:
    """Take steps on simulated anchors."""
    anchors = plugin_of(SPEED).simulate(SPEED, np.random.default_rng(0), 40)
    lesson = anchor_lesson(anchors, SPEED, weight=1.0, batch=16)
    for _ in range(count):
        training.learn([lesson], rate=1e-3, ema=0.99, seed=4, vary=True)
    return training


def weights_of(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """All weights of a training's student in one row."""
    return torch.cat([each.flatten().float() for name, each in tensors.items() if name.startswith("pupil.")])


@pytest.mark.parametrize("cut", [1, 5])
def test_a_restored_training_goes_on_bit_for_bit(cut: int) -> None:
    """Six steps in one go, and six with a file in between, leave the same weights, averages and memory."""
    whole = steps(Training(build_student(SPEED, "small"), SPEED, CPU), 6).tensors()
    half = steps(Training(build_student(SPEED, "small"), SPEED, CPU), cut).tensors()
    rest = steps(Training.restored(half, SPEED, "small", CPU), 6 - cut).tensors()
    assert whole.keys() == rest.keys()
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_the_state_of_another_student_is_refused() -> None:
    """A training of another tier, or half a file, names the student that it is not of."""
    tensors = steps(Training(build_student(SPEED, "small"), SPEED, CPU), 1).tensors()
    with pytest.raises(DistillationError, match=SPEED.students["base"]):
        Training.restored(tensors, SPEED, "base", CPU)
    with pytest.raises(DistillationError, match="step"):
        Training.restored({k: v for k, v in tensors.items() if k != "step"}, SPEED, "small", CPU)


def test_a_lesson_takes_each_sample_once_before_any_twice() -> None:
    """Two batches of eight out of sixteen are all sixteen; the next pass has another order."""
    anchors = plugin_of(SPEED).simulate(SPEED, np.random.default_rng(0), 16)
    lesson = anchor_lesson(anchors, SPEED, weight=1.0, batch=8)
    passes = [torch.cat([lesson.picks(1, step) for step in (at, at + 1)]) for at in (0, 2)]
    size = len(lesson.x)
    assert size == 16
    assert all(sorted(order.tolist()) == list(range(16)) for order in passes)
    assert not torch.equal(*passes)


def test_neighbouring_numbers_give_unrelated_seeds() -> None:
    """A thousand seeds by a thousand numbers, all different."""
    assert len({mixed(seed, number) for seed in range(100) for number in range(100)}) == 10_000
    assert mixed(0, 1) != mixed(1, 0)


def test_auto_is_cuda_only_where_there_is_one() -> None:
    """A named device is taken at its word, or refused with the setting, the machine and what to do."""
    assert compute_device("cpu") == CPU
    assert compute_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if torch.cuda.is_available():
        assert compute_device("cuda").type == "cuda"
        return
    with pytest.raises(NotReadyError, match=r"distil\.device is cuda, .* on \S+: set it to auto or cpu"):
        compute_device("cuda")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")
@pytest.mark.timeout(900)
def test_the_fast_way_is_the_plain_one_but_for_rounding() -> None:
    """Compiled and in bfloat16, through a file in the middle: where the plain way ends, up to a tenth of its path."""
    start = build_student(SPEED, "nano")
    plain = steps(Training(start, SPEED, CPU, fast=False), 6).tensors()
    half = steps(Training(start, SPEED, CPU, fast=True), 3)
    ends = [
        steps(Training.restored(half.tensors(), SPEED, "nano", CPU, fast=fast), 3).tensors() for fast in (True, False)
    ]
    assert half.fast
    path = (weights_of(plain) - weights_of(Training(start, SPEED, CPU).tensors())).norm()
    for quick in ends:
        assert {name: each.dtype for name, each in quick.items()} == {name: each.dtype for name, each in plain.items()}
        assert 0 < (weights_of(quick) - weights_of(plain)).norm() < 0.1 * path
    assert not torch.equal(*(weights_of(quick) for quick in ends))


@pytest.mark.timeout(900)
def test_without_a_compiler_the_fast_way_is_slower_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """A server with a GPU and no g++ distils all the same, and its log says once what would help."""
    torch._dynamo.reset()  # another test may have compiled the same student
    nowhere = {"cpp.cxx": (None, "/nowhere/g++"), "fx_graph_cache": False}
    start = build_student(SPEED, "nano")
    with torch._inductor.config.patch(nowhere):
        training = steps(Training(start, SPEED, CPU, fast=True), 2)
    assert training.step == 2
    assert not torch.equal(weights_of(training.tensors()), weights_of(Training(start, SPEED, CPU).tensors()))
    (said,) = [record.message for record in caplog.records if record.name == "broker_server.training"]
    assert "/nowhere/g++" in said
    assert said.endswith("(install gcc and g++)")


def test_the_fast_way_is_for_cuda_unless_asked() -> None:
    """On a CPU bfloat16 seldom pays and a compiler may be missing; whoever names a way gets it."""
    start = build_student(SPEED, "nano")
    assert not Training(start, SPEED, CPU).fast
    assert Training(start, SPEED, CPU, fast=True).fast


@pytest.mark.gpu
def test_a_step_on_cuda_moves_the_average() -> None:
    """Mixed precision and a compiled student take a step."""
    training = Training(build_student(SPEED, "small"), SPEED, torch.device("cuda"))
    before = training.average.head.weight.clone()
    steps(training, 2)
    assert not torch.equal(before, training.average.head.weight)
