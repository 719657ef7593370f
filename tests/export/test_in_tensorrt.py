"""A student in TensorRT: kept plans take new weights, others are built again, wrong answers are never served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from devices.runners.cuda import Cuda
from devices.runners.ort_runner import OrtRunner
from devices.runners.trt_build import Built, Order, Tell, build_plan
from devices.runners.trt_plans import Plans
from edge_protocol.errors import DeploymentError, DeviceError, IncompatibleError
from export.golden import make_golden
from export.in_tensorrt import Workshop, workshop_here
from tests.fakes.cudart import FakeCudart
from tests.fakes.student import PAYLOAD, TEMPLATE, X, graph, other_weights
from tests.fakes.trt import fake_tensorrt

VERSIONS = ("8.5.2.2", "10.3.0", "11.4.0")
LATER = save(other_weights())


def golden_of(payload: bytes) -> bytes:
    """Golden answers as ONNX Runtime gives them."""
    with OrtRunner(TEMPLATE, payload) as runner:
        return make_golden(runner, X[:4])


class Board:
    """A board with some TensorRT, whose builds are counted."""

    def __init__(self, folder: Path, trt: Any, memory: int = 1 << 30) -> None:
        self.trt, self.builds, self.heard = trt, 0, list[str]()
        self.library = FakeCudart(memory=memory)
        self.workshop = self.with_order(Plans(folder / "plans"), Order("student.onnx"))

    def with_order(self, plans: Plans, order: Order) -> Workshop:
        """Make a workshop of this board."""
        tell = lambda phase, share: self.heard.append(phase)  # noqa: E731
        return Workshop(self.trt, lambda: Cuda(self.library), plans, order, self.build, tell)

    def build(self, folder: Path, order: Order, timing: bytes, tell: Tell, **_: object) -> Built:
        """Build in this process."""
        self.builds += 1
        return build_plan(self.trt, folder, order, timing, tell)

    def logits(self, payload: bytes) -> np.ndarray:
        """Open a release and ask it."""
        with self.workshop.open(TEMPLATE, payload, golden_of(payload)) as runner:
            return runner.infer(X[:4]).logits


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_is_built_once_and_then_takes_weights(version: str, tmp_path: Path) -> None:
    """First a build, then the plan again, then the next release's weights in it; a restart builds nothing either."""
    for builds in (1, 0):
        board = Board(tmp_path, fake_tensorrt(version))
        for payload in (PAYLOAD, PAYLOAD, LATER, PAYLOAD):
            assert np.allclose(board.logits(payload), load(golden_of(payload))["logits"], atol=0.2)
        assert board.builds == builds
        assert not board.library.blocks
        assert not board.library.streams


def test_a_refit_that_is_refused_is_built_instead(tmp_path: Path) -> None:
    """Only the head is replaceable, other layers changed: parity fails, and another plan is built with an estimate."""
    board = Board(tmp_path, fake_tensorrt("10.3.0"))
    plans = Plans(tmp_path / "plans")
    board.workshop = board.with_order(plans, Order("student.onnx", replaceable=("head.weight",)))
    board.logits(PAYLOAD)
    head = save({**load(PAYLOAD), "head.weight": other_weights()["head.weight"]})
    board.logits(head)
    assert board.builds == 1
    board.logits(LATER)
    assert board.builds == 2
    assert [said.partition(" ")[0] for said in board.heard].count("build,") == 1


def test_a_plan_of_another_version_is_never_used(tmp_path: Path) -> None:
    """After a change of JetPack the key differs: a plan is built for each."""
    old, new = Board(tmp_path, fake_tensorrt("8.6.2")), Board(tmp_path, fake_tensorrt("10.3.0"))
    old.logits(PAYLOAD)
    new.logits(PAYLOAD)
    assert (old.builds, new.builds) == (1, 1)


def test_a_plan_that_drops_a_bias_does_not_serve(tmp_path: Path) -> None:
    """As TensorRT 11.3 may: the golden answers are off, nothing is kept, and a runner that answers goes on."""
    good = Board(tmp_path / "a", fake_tensorrt("11.3.0"))
    bad = Board(tmp_path / "b", fake_tensorrt("11.3.0", drop_bias=True))
    with good.workshop.open(TEMPLATE, PAYLOAD, golden_of(PAYLOAD)) as running:
        before = running.infer(X).logits
        with pytest.raises(DeploymentError, match="off the golden features"):
            bad.logits(PAYLOAD)
        assert np.array_equal(running.infer(X).logits, before)
    assert not list((tmp_path / "b").rglob("*.plan"))
    assert not bad.library.blocks


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (save({**load(PAYLOAD), "head.weight": np.full((64, 5), np.nan, np.float32)}), "not a finite number"),
        (save({**load(PAYLOAD), "head.weight": np.zeros((64, 6), np.float32)}), "another template"),
        (b"", "cannot be read"),
    ],
    ids=["nan", "template", "empty"],
)
def test_a_payload_that_does_not_fit_builds_nothing(payload: bytes, message: str, tmp_path: Path) -> None:
    """NaN, another template's, damaged: refused before any build, and a kept plan stays."""
    board = Board(tmp_path, fake_tensorrt("10.3.0"))
    board.logits(PAYLOAD)
    with pytest.raises(IncompatibleError, match=message):
        board.workshop.open(TEMPLATE, payload, golden_of(PAYLOAD))
    board.logits(PAYLOAD)
    assert board.builds == 1


def test_a_gpu_without_memory_costs_no_plan(tmp_path: Path) -> None:
    """Out of memory while loading is said so, and the plan is kept for when there is some."""
    Board(tmp_path, fake_tensorrt("10.3.0")).logits(PAYLOAD)
    short = Board(tmp_path, fake_tensorrt("10.3.0"), memory=1000)
    with pytest.raises(DeviceError, match="out of GPU memory"):
        short.logits(PAYLOAD)
    assert len(list((tmp_path / "plans").glob("*.plan"))) == 1


def test_another_template_is_another_plan(tmp_path: Path) -> None:
    """The same weights under another graph are not mistaken for it."""
    board = Board(tmp_path, fake_tensorrt("10.3.0"))
    board.logits(PAYLOAD)
    other = graph(operator="LeakyRelu")
    with OrtRunner(other, PAYLOAD) as runner:
        golden = make_golden(runner, X[:4])
    with board.workshop.open(other, PAYLOAD, golden):
        assert board.builds == 2


def test_fp16_is_allowed_more(tmp_path: Path) -> None:
    """Numbers of 16 bits are off by more than golden answers allow in FP32, and pass with their own tolerance."""
    board = Board(tmp_path, fake_tensorrt("8.6.2"))
    board.workshop = board.with_order(Plans(tmp_path / "p"), Order("student.onnx", precision="fp16"))
    assert board.logits(PAYLOAD).shape == (4, 5)


@pytest.mark.parametrize("foreign", [("10.3.0", "8.6"), ("10.16.1", "8.7")], ids=["GPU", "version"])
def test_a_kept_plan_of_another_board_is_built_again(foreign: tuple[str, str], tmp_path: Path) -> None:
    """As on a disk that was moved: it does not load, is forgotten, and another takes its place."""
    other = Board(tmp_path / "other", fake_tensorrt(*foreign))
    other.logits(PAYLOAD)
    board = Board(tmp_path, fake_tensorrt("10.3.0"))
    plan = next((tmp_path / "other").rglob("*.plan")).read_bytes()
    board.workshop.plans.put(board.workshop.key(TEMPLATE), Built(plan, b""), PAYLOAD, 1.0)
    for _ in range(2):
        assert np.allclose(board.logits(PAYLOAD), load(golden_of(PAYLOAD))["logits"], atol=0.2)
    assert board.builds == 1


def test_a_plan_that_cannot_be_kept_serves_all_the_same(tmp_path: Path) -> None:
    """A full disk costs the next start a build, not this one its plan."""
    board, warned = Board(tmp_path, fake_tensorrt("10.3.0")), list[str]()
    board.workshop = replace(board.workshop, warn=warned.append)
    (tmp_path / "plans" / f"{board.workshop.key(TEMPLATE).name}.plan.part").mkdir(parents=True)
    for builds in (1, 2):
        board.logits(PAYLOAD)
        assert board.builds == builds
    assert len(warned) == 2
    assert "free space, or it is built again" in warned[0]
    assert not board.library.blocks


@pytest.mark.gpu
def test_a_real_board_builds_keeps_and_refits(tmp_path: Path) -> None:
    """Where a GPU and TensorRT are: the guarded process, a kept plan, a refit, each judged by golden answers."""
    pytest.importorskip("tensorrt")
    here = workshop_here(plans=Plans(tmp_path))
    for payload in (PAYLOAD, PAYLOAD, LATER):
        with here.open(TEMPLATE, payload, golden_of(payload)) as runner:
            assert runner.provider.startswith("TensorRT")
            assert np.allclose(runner.infer(X[:4]).logits, load(golden_of(payload))["logits"], atol=0.2)
    assert len(list(tmp_path.glob("*.plan"))) == 1
