"""ONNX Runtime on the CPU: a template's graph with a payload's weights, swapped without rebuilding a file.

The weights are handed over with `add_external_initializers`, which replaces them before the graph is optimised and
checks name, type and shape. The older `add_initializer` must not be used for this: where the layout optimiser packs
the weights of a convolution, onnxruntime 1.31 silently goes on using the template's own (measured), and it checks no
shape.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from devices.closing import Closing
from devices.runners.base import Answer
from devices.runners.payload import read_payload
from edge_protocol.errors import IncompatibleError

F4 = npt.NDArray[np.float32]
CPU = "CPUExecutionProvider"
_FATAL = 4
_OUTPUTS = ("features", "logits")
UNKNOWN_OPERATOR = re.compile(r"NOT_IMPLEMENTED|No Op registered|is not a registered function/op|is till opset")
"""In what ONNX Runtime says when it lacks an operator, or knows older ones only."""
_WHERE = re.compile(r"/\S*onnxruntime\S*:\d+ .*?\) (?=[A-Z])")
_LONGEST = 250
_LACKS = re.compile(r"path validation failed for initializer: (\S+?)\. ")


class OrtRunner(Closing):
    """A student in ONNX Runtime.

    Args:
        template: ONNX graph whose weights are external.
        weights: safetensors with exactly those weights: fp16 or fp32, integers where the graph says so.
        threads: that one inference may use.

    Raises:
        IncompatibleError: a file is truncated, the batch is fixed, or names, shapes or values are not what the template
            needs.
    """

    def __init__(self, template: bytes, weights: bytes, *, threads: int = 1) -> None:
        self._session = open_student(template, weights, threads=threads)
        self.provider: str = self._session.get_providers()[0]
        batch, *shape = self._session.get_inputs()[0].shape
        if isinstance(batch, int):
            raise IncompatibleError(
                f"student has a fixed batch of {batch}: export it with a dynamic one, as 'roadcast export build' does"
            )
        self._shape = tuple(shape)

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *input shape) float32, N ≥ 1.

        Raises:
            IncompatibleError: x has another shape or type than the student takes, or its graph does not go together.
        """
        if not len(x):
            raise self._misfit(x)
        try:
            return Answer._make(self._session.run(_OUTPUTS, {"input": x}))
        except Exception as error:  # the runtime checks type and shape itself; asking first costs a small student 1 %
            if x.dtype != np.float32 or x.shape[1:] != self._shape:
                raise self._misfit(x) from error
            reason = str(error).splitlines()[0]
            raise IncompatibleError(f"student does not answer {x.shape}: {reason}; export it again") from error

    def _misfit(self, x: F4) -> IncompatibleError:
        return IncompatibleError(f"student takes float32 (N, *{self._shape}), N ≥ 1; was given {x.dtype} {x.shape}")

    def close(self) -> None:
        """Free the session."""
        del self._session


def said(error: Exception) -> str:
    """What ONNX Runtime said: one line, without its line of C++, short enough that what to do still fits a message."""
    return _WHERE.sub("", str(error).splitlines()[0])[:_LONGEST]


def session_options(
    threads: int = 1,
    profile: Path | None = None,
    runtime: Any = onnxruntime,  # noqa: ANN401 - a module
) -> onnxruntime.SessionOptions:
    """Options that every session of ours has.

    Args:
        threads: that one inference may use.
        profile: where a record of every node that ran is written; it costs time.
        runtime: ONNX Runtime.
    """
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the board trains on the same cores
    options.enable_cpu_mem_arena = False  # a student needs little, and an arena never gives back
    options.log_severity_level = _FATAL  # every failure is raised
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return options


def open_student(
    template: bytes,
    weights: bytes,
    *,
    threads: int = 1,
    profile: Path | None = None,
    providers: Sequence[str | tuple[str, dict[str, str]]] = (CPU,),
    runtime: Any = onnxruntime,  # noqa: ANN401 - a module
) -> onnxruntime.InferenceSession:
    """Load a template's graph with a payload's weights.

    Args:
        template: as of `OrtRunner`.
        weights: likewise.
        threads: likewise.
        profile: as of `session_options`.
        providers: in order of preference.
        runtime: ONNX Runtime.

    Raises:
        IncompatibleError: as `OrtRunner` says.
    """
    tensors = read_payload(weights)
    options = session_options(threads, profile, runtime)
    values = [runtime.OrtValue.ortvalue_from_numpy(array) for array in tensors.values()]
    try:
        options.add_external_initializers(list(tensors), values)
        return runtime.InferenceSession(template, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        lacking = _LACKS.search(str(error))
        reason = f"the payload lacks {lacking[1]!r}" if lacking else said(error)
        remedy = "check that both come from the same release, and fetch them again"
        if UNKNOWN_OPERATOR.search(str(error)):
            remedy = "replace this operator in the student, or use a newer ONNX Runtime"
        raise IncompatibleError(
            f"template of {len(template)} bytes and {len(tensors)} weights make no student: {reason}; {remedy}"
        ) from error
