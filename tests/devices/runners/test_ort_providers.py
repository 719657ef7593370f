"""CUDA and TensorRT by way of ONNX Runtime: what they are given, and that only what ran is believed; no GPU here."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest

from devices.runners.ort_providers import MOST_BATCH, NAMES, GpuRunner, Kind, options_of
from devices.runners.ort_runner import OrtRunner
from edge_protocol.errors import DeviceError, IncompatibleError, NotReadyError, StoreError
from tests.fakes.ort import FakeRuntime
from tests.fakes.small_centre import artifact_files

FILES = artifact_files()
TEMPLATE, PAYLOAD = FILES.template, FILES.weights
SHAPE = (3, 32, 32)
X = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)
CUDA, TRT = NAMES["cuda"], NAMES["tensorrt"]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_provider_that_ran_answers(kind: Kind) -> None:
    """The answers are the student's, the provider is named, and its share of nodes is kept."""
    runtime = FakeRuntime(NAMES[kind], runs=NAMES[kind])
    with GpuRunner(kind, TEMPLATE, PAYLOAD, shape=SHAPE, runtime=runtime) as runner:
        assert (runner.provider, runner.shares) == (NAMES[kind], {NAMES[kind]: 1.0})
        answer = runner.infer(X)
        with pytest.raises(IncompatibleError, match="student takes float32"):
            runner.infer(X[:, :2])
    with OrtRunner(TEMPLATE, PAYLOAD) as plain:
        assert np.allclose(answer.features, plain.infer(X).features, rtol=1e-4, atol=1e-5)
    assert {name for name, _ in runtime.asked} == {NAMES[kind]}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_a_provider_that_is_listed_and_runs_nothing_is_refused(kind: Kind) -> None:
    """A wheel without kernels for this GPU falls back to the CPU without a word: that is no GPU runner."""
    runtime = FakeRuntime(NAMES[kind], runs="CPUExecutionProvider")
    with pytest.raises(NotReadyError, match="ran nothing; what ran: CPUExecutionProvider"):
        GpuRunner(kind, TEMPLATE, PAYLOAD, shape=SHAPE, runtime=runtime)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_this_machine_s_own_runtime_has_none(kind: Kind) -> None:
    """The real ONNX Runtime of these tests is for the CPU: a clear error, not an answer from the CPU."""
    if NAMES[kind] in onnxruntime.get_available_providers():
        pytest.skip("an ONNX Runtime for GPUs is installed here")
    with pytest.raises(NotReadyError, match="pip install onnxruntime-gpu"):
        GpuRunner(kind, TEMPLATE, PAYLOAD, shape=SHAPE)


def test_options_are_by_version() -> None:
    """Nothing below 1.20; profiles of one to many samples for TensorRT; no engine is kept unless a folder is named."""
    for version in ("1.16.3", "0", "new"):
        with pytest.raises(NotReadyError, match=r"from 1\.20 on"):
            options_of("tensorrt", version)
    assert options_of("cuda", "1.20.0") == options_of("cuda", "1.31.1", shape=SHAPE, cache=Path("/c"))
    assert options_of("cuda", "2.0.0")["use_tf32"] == "0"
    plain = options_of("tensorrt", "1.31.1", shape=SHAPE)
    assert plain["trt_profile_max_shapes"] == f"input:{MOST_BATCH}x3x32x32"
    assert plain["trt_profile_min_shapes"] == plain["trt_profile_opt_shapes"] == "input:1x3x32x32"
    assert "trt_engine_cache_enable" not in plain
    kept = options_of("tensorrt", "1.31.1", shape=SHAPE, cache=Path("/c"))
    assert (kept["trt_engine_cache_enable"], kept["trt_engine_cache_path"]) == ("1", "/c")
    assert all(isinstance(value, str) for value in kept.values()), "ONNX Runtime takes text"


def test_engines_of_other_weights_are_never_taken(tmp_path: Path) -> None:
    """ONNX Runtime finds an engine by the graph alone, so each payload has a folder of its own."""
    runtime = FakeRuntime(TRT, runs=TRT)
    other = artifact_files(seed=1).weights
    for weights in (PAYLOAD, PAYLOAD, other):
        GpuRunner("tensorrt", TEMPLATE, weights, shape=SHAPE, cache=tmp_path, runtime=runtime).close()
    folders = [options["trt_engine_cache_path"] for _, options in runtime.asked]
    assert folders == [folders[0]] * 4 + [folders[-1]] * 2, "two sessions each: one is proof"
    assert {str(path) for path in tmp_path.iterdir()} == set(folders)
    assert len(set(folders)) == 2
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        GpuRunner("tensorrt", TEMPLATE, PAYLOAD, shape=SHAPE, cache=tmp_path / "file", runtime=runtime)


def test_tensorrt_is_given_files_and_cuda_memory() -> None:
    """TensorRT's parser reads weights beside the file; the files are gone once it is loaded; damage is named."""
    trt, cuda = FakeRuntime(TRT, runs=TRT), FakeRuntime(CUDA, runs=CUDA)
    GpuRunner("tensorrt", TEMPLATE, PAYLOAD, shape=SHAPE, runtime=trt).close()
    GpuRunner("cuda", TEMPLATE, PAYLOAD, shape=SHAPE, runtime=cuda).close()
    assert all(isinstance(model, str) and not Path(model).exists() for model in trt.models)
    assert cuda.models == [TEMPLATE, TEMPLATE]
    with pytest.raises(IncompatibleError, match="not an ONNX file"):
        GpuRunner("tensorrt", TEMPLATE[:50], PAYLOAD, shape=SHAPE, runtime=trt)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_buffers_are_bound_once_for_a_batch(kind: Kind) -> None:
    """The input on the GPU, outputs on the host; one copy a query; another batch binds anew, as does the way back."""
    runtime = FakeRuntime(NAMES[kind], runs=NAMES[kind])
    with GpuRunner(kind, TEMPLATE, PAYLOAD, shape=SHAPE, runtime=runtime) as runner:
        assert (runtime.allocated, runtime.bound) == ([], []), "what is never asked needs no buffer"
        for _ in range(3):
            runner.infer(X)
        assert (runtime.allocated, runtime.copied) == ([X.shape], 3)
        assert runtime.bound == [("input", "cuda"), ("features", "cpu"), ("logits", "cpu")]
        one, two = runner.infer(X[:1]), runner.infer(X[::-1])
        assert runtime.allocated == [X.shape, (1, *SHAPE), X.shape]
    assert np.allclose(one.logits, two.logits[1:], rtol=1e-4, atol=1e-5)


def test_a_gpu_without_memory_is_an_error_that_passes() -> None:
    """Too many samples at once are refused with what to do; fewer are answered after it."""
    runtime = FakeRuntime(CUDA, runs=CUDA, memory=2 * X[:1].nbytes)
    with GpuRunner("cuda", TEMPLATE, PAYLOAD, shape=SHAPE, runtime=runtime) as runner:
        before = runner.infer(X)
        with pytest.raises(DeviceError, match=r"does not answer \(4, .*ask fewer samples at once"):
            runner.infer(np.concatenate([X, X]))
        assert np.array_equal(runner.infer(X).logits, before.logits)


@pytest.mark.parametrize("x", [X[:0], X[0], X.astype(np.float64), X.reshape(2, 32, 3, 32)])
def test_what_does_not_fit_never_reaches_a_buffer(x: np.ndarray) -> None:
    """ONNX Runtime copies whatever has as many numbers, of any type and shape: it is refused before."""
    runtime = FakeRuntime(CUDA, runs=CUDA)
    with GpuRunner("cuda", TEMPLATE, PAYLOAD, shape=SHAPE, runtime=runtime) as runner:
        runner.infer(X)
        with pytest.raises(IncompatibleError, match="student takes float32"):
            runner.infer(x)
    assert runtime.copied == 1
