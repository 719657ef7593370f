"""TensorRT's runner, build and refit in every version of the table, on a fake that has that version's calls only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import save

from devices.runners.cuda import Cuda, load_cudart
from devices.runners.ort_runner import OrtRunner
from devices.runners.payload import lay_out
from devices.runners.trt_build import Built, Order, build_plan
from devices.runners.trt_refit import RefitRefusedError
from devices.runners.trt_runner import TrtRunner
from devices.runners.trt_versions import load_tensorrt
from edge_protocol.errors import DeploymentError, DeviceError, IncompatibleError
from tests.fakes.cudart import FakeCudart
from tests.fakes.student import PAYLOAD, TEMPLATE, X, graph, other_weights
from tests.fakes.trt import fake_tensorrt

VERSIONS = ("8.5.2.2", "8.6.2", "10.0.1", "10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0")
OLD, NEW = VERSIONS[0], VERSIONS[-1]


def build(trt: Any, folder: Path, order: Order | None = None, timing: bytes = b"") -> Built:
    """Build a plan of the student, or of what already lies in the folder."""
    if not (folder / "student.onnx").exists():
        lay_out(folder, TEMPLATE, PAYLOAD)
    return build_plan(trt, folder, order or Order("student.onnx"), timing, lambda phase, share: None)


def expected(payload: bytes = PAYLOAD) -> np.ndarray:
    """Logits as ONNX Runtime gives them."""
    with OrtRunner(TEMPLATE, payload) as runner:
        return runner.infer(X).logits


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_is_built_and_answers(version: str, tmp_path: Path) -> None:
    """In each version: the payload's answers, in pieces of the plan's largest batch, and all memory is given back."""
    trt, library = fake_tensorrt(version), FakeCudart()
    built = build(trt, tmp_path, Order("student.onnx", batch=2), b"before")
    assert built.timing == b"beforet"
    with TrtRunner(trt, Cuda(library), built.plan) as runner:
        assert runner.provider == f"TensorRT {version} on compute capability 8.7"
        for batch in (1, 2, 5):
            answer = runner.infer(X[:batch])
            assert np.allclose(answer.logits, expected()[:batch], atol=1e-3)
            assert answer.features.shape == (batch, 64)
        kept = answer.logits.copy()
        runner.infer(X[:1] * 2)
        assert np.array_equal(answer.logits, kept)
    assert not library.blocks
    assert not library.streams


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_takes_other_weights(version: str, tmp_path: Path) -> None:
    """In each version: a refitted plan answers as the new weights do, and a plan that runs meanwhile as before."""
    trt = fake_tensorrt(version)
    plan = build(trt, tmp_path).plan
    payload = save(other_weights())
    student = lay_out(tmp_path, TEMPLATE, payload)
    with TrtRunner(trt, Cuda(FakeCudart()), plan) as running:
        with TrtRunner(trt, Cuda(FakeCudart()), plan, student=student) as runner:
            assert np.allclose(runner.infer(X).logits, expected(payload), atol=1e-3)
        assert np.allclose(running.infer(X).logits, expected(), atol=1e-3)


def test_single_weights_can_be_made_replaceable(tmp_path: Path) -> None:
    """From 10.3 the head alone; what it does not know is refused, and before 10.3 all weights are replaceable."""
    order = Order("student.onnx", replaceable=("head.weight",))
    payload, later = save(other_weights()), tmp_path / "later"
    later.mkdir()
    for version, same in (("10.0.1", True), ("10.3.0", False)):
        trt = fake_tensorrt(version)
        plan = build(trt, tmp_path, order).plan
        student = lay_out(later, TEMPLATE, payload)
        with TrtRunner(trt, Cuda(FakeCudart()), plan, student=student) as runner:
            assert np.allclose(runner.infer(X).logits, expected(payload), atol=1e-3) == same
    with pytest.raises(IncompatibleError, match=r"no weights \['bogus'\]"):
        build(fake_tensorrt(NEW), tmp_path, Order("student.onnx", replaceable=("bogus",)))


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_refit_that_is_refused_says_so(version: str, tmp_path: Path) -> None:
    """A plan built without the possibility, and weights of another size, are one kind of error."""
    trt = fake_tensorrt(version)
    plan = build(trt, tmp_path).plan
    without = plan.replace(b'["conv.weight", "conv.bias", "head.weight"]', b"[]")
    with pytest.raises(RefitRefusedError, match="was not built with REFIT"):
        TrtRunner(trt, Cuda(FakeCudart()), without, student=tmp_path / "student.onnx")
    partly = plan.replace(b'"conv.bias", ', b"")
    if version == OLD:
        with pytest.raises(RefitRefusedError, match=r"no weight 'conv\.bias'"):
            TrtRunner(trt, Cuda(FakeCudart()), partly, student=tmp_path / "student.onnx")


@pytest.mark.parametrize("version", VERSIONS)
def test_int8_layers_of_the_file_are_taken(version: str, tmp_path: Path) -> None:
    """Explicit quantise/dequantise pairs build in each version, and a bias in INT32 is refused with its layer."""
    onnx.save(_quantised(TEMPLATE, tmp_path), str(tmp_path / "q.onnx"))
    trt = fake_tensorrt(version)
    plan = build(trt, tmp_path, Order("q.onnx")).plan
    with TrtRunner(trt, Cuda(FakeCudart()), plan) as runner:
        assert np.allclose(runner.infer(X).logits, expected(), atol=1)


def _quantised(template: bytes, folder: Path) -> onnx.ModelProto:
    """Put a pair before the convolution, in 8 bits."""
    model = onnx.load(str(lay_out(folder, template, PAYLOAD)))
    scale = onnx.numpy_helper.from_array(np.float32(0.04), "scale")
    zero = onnx.numpy_helper.from_array(np.int8(0), "zero")
    model.graph.initializer.extend([scale, zero])
    pair = [
        onnx.helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        onnx.helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    ]
    model.graph.node[0].input[0] = "d"
    for node in reversed(pair):
        model.graph.node.insert(0, node)
    return model


def test_fp16_is_allowed_where_the_version_can(tmp_path: Path) -> None:
    """Up to 10 a build may use FP16; 11 has only the file's types, and names the way."""
    order = Order("student.onnx", precision="fp16")
    for version in VERSIONS[:-1]:
        trt = fake_tensorrt(version)
        with TrtRunner(trt, Cuda(FakeCudart()), build(trt, tmp_path, order).plan) as runner:
            off = np.abs(runner.infer(X).logits - expected()).max()
            assert 0 < off < 0.02 * np.abs(expected()).max()
    with pytest.raises(IncompatibleError, match="variant int8-trt"):
        build(fake_tensorrt(NEW), tmp_path, order)


def test_an_operator_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Layer, operator where the version tells it, and the way out."""
    lay_out(tmp_path, graph(operator="Erf"), PAYLOAD)
    with pytest.raises(IncompatibleError, match=r"layer 'act' \(Erf\): No importer.*replace the operator"):
        build(fake_tensorrt(NEW, unsupported="Erf"), tmp_path)
    with pytest.raises(IncompatibleError, match="layer number 1: No importer"):
        build(fake_tensorrt(OLD, unsupported="Erf"), tmp_path)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_fixed_batch_is_refused(version: str, tmp_path: Path) -> None:
    """Before minutes are spent on it, with how to export it."""
    lay_out(tmp_path, graph(batch=1), PAYLOAD)
    with pytest.raises(IncompatibleError, match="fixed batch of 1: export it with a dynamic one"):
        build(fake_tensorrt(version), tmp_path)


def test_a_build_without_a_gpu_says_so(tmp_path: Path) -> None:
    """pybind11 raises a TypeError of its own then."""
    trt = fake_tensorrt(NEW)

    def none(log: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder = none
    with pytest.raises(DeviceError, match=r"finds no GPU.*nullptr.*roadcast doctor"):
        build(trt, tmp_path)


def test_a_runner_that_is_dropped_frees_itself(tmp_path: Path) -> None:
    """As a release that is swapped out: nobody closes it."""
    trt, library = fake_tensorrt(NEW), FakeCudart()
    runner = TrtRunner(trt, Cuda(library), build(trt, tmp_path).plan)
    runner.infer(X)
    assert library.blocks
    del runner
    assert not library.blocks
    assert not library.streams


def test_two_threads_may_ask_at_once(tmp_path: Path) -> None:
    """A probation asks while frames are answered: nobody gets the other's answer."""
    trt = fake_tensorrt(NEW)
    with TrtRunner(trt, Cuda(FakeCudart()), build(trt, tmp_path).plan) as runner:
        inputs = [X * (1 + n) for n in range(4)]
        right = [runner.infer(x).logits for x in inputs]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(20):
                given = pool.map(lambda x: runner.infer(x).logits, inputs)
                assert all(np.array_equal(a, b) for a, b in zip(given, right, strict=True))


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    """Out of memory and anything else, with a remedy each."""
    with pytest.raises(DeploymentError, match=r"requested 3 GB of memory.*add swap, or lower workspace_mb"):
        build(fake_tensorrt(NEW, said="requested 3 GB of memory"), tmp_path)
    with pytest.raises(DeploymentError, match=r"no implementation for node.*ONNX Runtime"):
        build(fake_tensorrt(NEW, said="no implementation for node"), tmp_path)


@pytest.mark.parametrize(
    ("version", "capability", "message"),
    [
        ("10.3.0", "8.6", "incompatible device, expecting compute 8.6 got compute 8.7"),
        ("10.16.1", "8.7", "Version tag"),
    ],
)
def test_a_plan_of_another_board_is_refused(version: str, capability: str, message: str, tmp_path: Path) -> None:
    """Another GPU, another version: TensorRT's own reason, and what to do; no memory stays behind."""
    plan = build(fake_tensorrt("10.3.0"), tmp_path).plan
    library = FakeCudart()
    with pytest.raises(IncompatibleError, match=rf"{message}.*delete it, and it is built again"):
        TrtRunner(fake_tensorrt(version, capability), Cuda(library), plan)
    assert not library.streams
    with pytest.raises(IncompatibleError, match="damaged"):
        TrtRunner(fake_tensorrt(version), Cuda(library), plan[: len(plan) // 2][1:])


def test_out_of_memory_leaves_nothing_behind(tmp_path: Path) -> None:
    """Where buffers do not fit, those that did are freed."""
    trt, library = fake_tensorrt(NEW), FakeCudart(memory=100_000)
    plan = build(trt, tmp_path, Order("student.onnx", batch=64)).plan
    with pytest.raises(DeviceError, match="out of GPU memory"):
        TrtRunner(trt, Cuda(library), plan)
    assert not library.blocks
    assert not library.streams


@pytest.mark.parametrize("x", [X[:0], X[:, :3], X[0], X.astype(np.float64)], ids=["none", "shape", "single", "f8"])
def test_inputs_that_do_not_fit_are_refused(x: np.ndarray, tmp_path: Path) -> None:
    """No sample, another shape or another type is an error of ours, with both sides named."""
    trt = fake_tensorrt(NEW)
    with (
        TrtRunner(trt, Cuda(FakeCudart()), build(trt, tmp_path).plan) as runner,
        pytest.raises(IncompatibleError, match="student takes float32"),
    ):
        runner.infer(x)


@pytest.mark.gpu
def test_the_real_one_builds_answers_and_refits(tmp_path: Path) -> None:
    """Where a GPU and TensorRT are: answers as ONNX Runtime gives them, before and after a refit."""
    pytest.importorskip("tensorrt")
    trt = load_tensorrt()
    plan = build(trt, tmp_path).plan
    with TrtRunner(trt, Cuda(load_cudart()), plan) as runner:
        assert np.allclose(runner.infer(X).logits, expected(), atol=1e-2)
    payload = save(other_weights())
    student = lay_out(tmp_path, TEMPLATE, payload)
    with TrtRunner(trt, Cuda(load_cudart()), plan, student=student) as runner:
        assert np.allclose(runner.infer(X).logits, expected(payload), atol=1e-2)
