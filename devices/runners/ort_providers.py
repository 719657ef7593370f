"""ONNX Runtime on a GPU: options of its CUDA and TensorRT providers by version, and proof that the one asked for ran.

None of the wheels that have these providers was run here: options are those of ONNX Runtime's documentation and, of
1.31.1, of the symbols in its wheel. A provider that is listed may have no kernel for this GPU, and falls back to the
CPU without a word, so a model is run under the profiler before the runner is given out. Inputs and outputs are bound to
buffers that stay.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnxruntime

from devices.runners.base import F4, Answer
from devices.runners.ort_binding import Binding
from devices.runners.ort_proof import providers_that_ran
from devices.runners.ort_runner import CPU, OrtRunner, open_student, session_options
from devices.runners.payload import lay_out
from edge_protocol.errors import DeviceError, IncompatibleError, NotReadyError, StoreError

Kind = Literal["cuda", "tensorrt"]
Runtime = Any
"""The module ``onnxruntime``, or what stands for it in a test."""
NAMES: Final[Mapping[Kind, str]] = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
WORKSPACE_BYTES: Final = 512 << 20
"""More than a student needs, and less than a board of 4 GB has left."""
MOST_BATCH: Final = 64
OPTIONS: Final[Mapping[Kind, tuple[tuple[tuple[int, int], Mapping[str, str]], ...]]] = {
    "cuda": (
        (
            (1, 20),
            {
                "arena_extend_strategy": "kSameAsRequested",  # the board's memory is the processor's too
                "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search takes seconds at each new weights
                "use_tf32": "0",  # answers are compared with the CPU's
            },
        ),
    ),
    "tensorrt": (
        (
            (1, 20),
            {
                "trt_max_workspace_size": str(WORKSPACE_BYTES),
                "trt_timing_cache_enable": "1",
                "trt_fp16_enable": "0",  # an INT8 or FP16 student says so in its own graph
            },
        ),
    ),
}
"""By provider: from which version on which options are given, each row beside those above it."""


def options_of(kind: Kind, version: str, *, shape: tuple[int, ...] = (), cache: Path | None = None) -> dict[str, str]:
    """What a provider is given.

    Args:
        kind: which provider.
        version: of ONNX Runtime, such as ``1.31.1``.
        shape: of one sample; TensorRT builds for 1 to `MOST_BATCH` of them.
        cache: folder of engines and timings; none are kept without one.

    Raises:
        NotReadyError: the version is too old, or not a version.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    found = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    options: dict[str, str] = {}
    for since, given in OPTIONS[kind]:
        if found >= since:
            options |= given
    if not options:
        least = ".".join(map(str, OPTIONS[kind][0][0]))
        raise NotReadyError(f"ONNX Runtime {version}: {NAMES[kind]} is used from {least} on; install a newer one")
    if kind == "tensorrt" and shape:
        for name, batch in (("min", 1), ("opt", 1), ("max", MOST_BATCH)):
            options[f"trt_profile_{name}_shapes"] = f"input:{'x'.join(map(str, (batch, *shape)))}"
    if kind == "tensorrt" and cache is not None:
        place = str(cache)
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": place, "trt_timing_cache_path": place}
    return options


class GpuRunner(OrtRunner):
    """A student on a GPU by way of ONNX Runtime.

    Args:
        kind: which provider.
        template, weights: as of `OrtRunner`.
        shape: of one sample.
        cache: below it, a folder for these weights keeps TensorRT's engines: ONNX Runtime does not look at weights
            when it takes an engine from its cache.
        runtime: ONNX Runtime.

    Attributes:
        shares: of graph nodes, by the provider that ran them, with a zero sample.

    Raises:
        IncompatibleError: the files do not fit each other.
        NotReadyError: this ONNX Runtime has no such provider, or the provider ran nothing.
        StoreError: the disk refuses.
    """

    def __init__(
        self,
        kind: Kind,
        template: bytes,
        weights: bytes,
        *,
        shape: tuple[int, ...],
        cache: Path | None = None,
        runtime: Runtime = onnxruntime,
    ) -> None:
        name = NAMES[kind]
        if name not in runtime.get_available_providers():
            raise NotReadyError(
                f"ONNX Runtime {runtime.__version__} here has no {name}; on a Jetson install the onnxruntime-gpu of "
                "its JetPack, elsewhere 'pip install onnxruntime-gpu'; 'roadcast doctor' tries every provider"
            )
        own = _folder(cache, template + weights)
        asked: list[str | tuple[str, dict[str, str]]] = [
            (name, options_of(kind, runtime.__version__, shape=shape, cache=own)),
            CPU,
        ]

        def opened(profile: Path | None = None) -> Any:  # noqa: ANN401 - of the runtime that was given
            if kind == "cuda":
                return open_student(template, weights, profile=profile, providers=asked, runtime=runtime)
            return _from_files(template, weights, asked, profile, runtime)

        self.shares = _proven(name, opened, shape)
        self._bound, self._shape = Binding(opened(), runtime, shape), shape
        self.provider = name

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *input shape) float32, N ≥ 1; another N than before allocates anew.

        Raises:
            DeviceError: the GPU failed, or has no memory left.
            IncompatibleError: x has another shape or type than the student takes.
        """
        if not len(x) or x.dtype != np.float32 or x.shape[1:] != self._shape:
            raise self._misfit(x)
        try:
            return self._bound.infer(x)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise DeviceError(
                f"{self.provider} does not answer {x.shape}: {str(error).splitlines()[0]}; ask fewer samples at once, "
                "close other users of the GPU, or use the CPU"
            ) from error

    def close(self) -> None:
        """Free buffers and session."""
        del self._bound


def _proven(name: str, opened: Callable[[Path], Any], shape: tuple[int, ...]) -> dict[str, float]:
    shares = providers_that_ran(opened, {"input": np.zeros((1, *shape), np.float32)})
    if not shares.get(name):
        raise NotReadyError(
            f"{name} was asked for and ran nothing; what ran: {', '.join(shares)}. The wheel has no kernels for this "
            "GPU, or a library is missing: 'roadcast doctor' says which"
        )
    return shares


def _folder(cache: Path | None, student: bytes) -> Path | None:
    if cache is None:
        return None
    folder = cache / sha256(student).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made: {error.strerror or error}; name another cache") from error
    return folder


def _from_files(
    template: bytes, weights: bytes, asked: Sequence[object], profile: Path | None, runtime: Runtime
) -> Any:  # noqa: ANN401
    """Open a student from a folder: TensorRT's parser wants weights in files, whatever the version."""
    with tempfile.TemporaryDirectory() as folder:
        student = lay_out(Path(folder), template, weights)
        try:
            options = session_options(profile=profile, runtime=runtime)
            return runtime.InferenceSession(str(student), options, providers=list(asked))
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise IncompatibleError(
                f"student of {len(template)} bytes does not load in TensorRT by way of ONNX Runtime: "
                f"{str(error).splitlines()[0]}; use --runner trt, or the CPU"
            ) from error
