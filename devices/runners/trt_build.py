"""A TensorRT plan from an ONNX file, its weights beside it; a program too, for a build takes minutes and memory.

As a program (``python -m devices.runners.trt_build FOLDER``) it reads ``order.json`` in its folder, writes ``plan`` and
``timing``, says on stdout what it does, one JSON object a line, and ends with a reason in ``error`` and 1 when there is
no plan. `trt_process` runs it.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from devices.runners.trt_log import logger_of
from devices.runners.trt_runner import INPUT
from devices.runners.trt_versions import Api, Trt, api_of, load_tensorrt
from edge_protocol.errors import DeploymentError, DeviceError, IncompatibleError, RoadcastError

ORDER: Final = "order.json"
PLAN: Final = "plan"
TIMING: Final = "timing"
ERROR: Final = "error"
REMEDY: Final = (
    "stop what else uses memory, raise the service's memory_mb, add swap, or lower workspace_mb; ONNX Runtime answers "
    "meanwhile"
)
"""What to do when memory is short."""
_PDEATHSIG: Final = 1
_LONGEST: Final = 200
Precision = Literal["file", "fp16"]
Tell = Callable[[str, float], None]
"""Takes a phase and the share of it that is done, 0 to 1."""


class Order(msgspec.Struct, frozen=True):
    """What is to be built.

    Attributes:
        student: name of the ONNX file in the folder.
        precision: ``file`` computes in the number types of the file (FP32, INT8 by quantise/dequantise pairs), ``fp16``
            lets TensorRT use FP16 where it is faster.
        batch: most samples at once; one is what it is tuned for.
        workspace: bytes that a layer may use beside its weights.
        replaceable: names of weights that refits bring; all when empty.
    """

    student: str
    precision: Precision = "file"
    batch: int = 8
    workspace: int = 256 << 20
    replaceable: tuple[str, ...] = ()


class Built(NamedTuple):
    """A plan, and what was learnt about the speed of kernels, which makes the next build of its kind faster."""

    plan: bytes
    timing: bytes


def build_plan(trt: Trt, folder: Path, order: Order, timing: bytes, tell: Tell) -> Built:
    """Build a plan in this process, which may take minutes and cannot be stopped.

    Args:
        trt: the module.
        folder: with the student.
        order: see `Order`.
        timing: of an earlier build on this board, or nothing.
        tell: hears of progress.

    Raises:
        DeploymentError: out of memory, or TensorRT finds no way.
        DeviceError: no GPU, or its driver is too old.
        IncompatibleError: an operator it does not have, a fixed batch, or a precision that this version has not.
    """
    api, log = api_of(trt.__version__), logger_of(trt)
    typed = api.strongly_typed != "never" and order.precision == "file"
    if order.precision == "fp16" and not api.precision_flags:
        raise IncompatibleError(
            f"TensorRT {trt.__version__} computes in the file's number types only: set tensorrt.precision to 'file'; "
            "for less than FP32 release the variant int8-trt"
        )
    builder = builder_of(trt, log)
    tell("parse", 0)
    network, _parser = parse(trt, builder, folder / order.student, _creation(trt, api, typed=typed), log)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace)
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of a number are too few for golden answers
    if not typed:
        _allow(trt, config, network, order.precision)
    _make_replaceable(trt, api, config, network, order.replaceable)
    config.add_optimization_profile(profile_of(builder, network, order.batch))
    cache = config.create_timing_cache(timing)
    config.set_timing_cache(cache, ignore_mismatch=False)
    if api.monitor:
        config.progress_monitor = _monitor(trt, tell)
    tell("build", 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise unbuilt(trt, log.said())
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()))


def builder_of(trt: Trt, log: Any) -> Any:  # noqa: ANN401 - TensorRT's
    """Make a builder.

    Raises:
        DeviceError: no GPU, or its driver is too old.
    """
    try:
        return trt.Builder(log)
    except TypeError as error:  # pybind11: the factory returned nullptr
        raise DeviceError(
            f"TensorRT {trt.__version__} finds no GPU, or its driver is too old: {log.said() or error}; see "
            "'roadcast doctor', or use ONNX Runtime"
        ) from error


class Parsed(NamedTuple):
    """A network, and the parser that may own its weights."""

    network: Any
    parser: Any


def parse(trt: Trt, builder: Any, student: Path, flags: int, log: Any) -> Parsed:  # noqa: ANN401 - TensorRT's
    """Read an ONNX file, its weights beside it, into a network.

    Raises:
        IncompatibleError: no ONNX file, an operator that TensorRT does not have, or a fixed batch.
    """
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(student)):
        raise _unparsed(trt, parser)
    first = network.get_input(0).shape[0]
    if first != -1:
        raise IncompatibleError(
            f"student has a fixed batch of {first}: export it with a dynamic one, as 'roadcast export build' does"
        )
    return Parsed(network, parser)


def _creation(trt: Trt, api: Api, *, typed: bool) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if api.explicit_batch:
        return 1 << int(flags.EXPLICIT_BATCH)
    return 1 << int(flags.STRONGLY_TYPED) if typed and api.strongly_typed == "flag" else 0


def _allow(trt: Trt, config: Any, network: Any, precision: Precision) -> None:  # noqa: ANN401 - TensorRT's
    """Without strong types, INT8 and FP16 count only where they are allowed, though the file says them."""
    kinds = [network.get_layer(number) for number in range(network.num_layers)]
    if any(layer.type == trt.LayerType.QUANTIZE for layer in kinds):
        config.set_flag(trt.BuilderFlag.INT8)
    halves = any(layer.num_outputs and layer.get_output(0).dtype == trt.DataType.HALF for layer in kinds)
    if precision == "fp16" or halves:
        config.set_flag(trt.BuilderFlag.FP16)


def _make_replaceable(
    trt: Trt,
    api: Api,
    config: Any,  # noqa: ANN401 - TensorRT's
    network: Any,  # noqa: ANN401 - TensorRT's
    names: tuple[str, ...],
) -> None:
    if not names or not api.refit_individual:
        config.set_flag(trt.BuilderFlag.REFIT)
        return
    config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    if unknown := [name for name in names if not network.mark_weights_refittable(name)]:
        raise IncompatibleError(
            f"student has no weights {unknown[:3]} to make replaceable: take names from its payload"
        )


def profile_of(builder: Any, network: Any, batch: int) -> Any:  # noqa: ANN401 - TensorRT's
    """Batches of 1 to `batch`, tuned for one."""
    rest = tuple(network.get_input(0).shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, *rest), (1, *rest), (batch, *rest))
    return profile


def _monitor(trt: Trt, tell: Tell) -> Any:  # noqa: ANN401 - a class of a module that is imported late
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its base is known at run time only
        """Passes on the steps of the outermost phase."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Learn how many steps a phase has."""
            if parent_phase is None:
                self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Pass a step on; the build goes on in any case, who wants it to end kills the process."""
            if steps := self._steps.get(phase_name):
                tell("build", (step + 1) / steps)
            return True

        def phase_finish(self, phase_name: str) -> None:
            """Forget a phase."""
            self._steps.pop(phase_name, None)

    return Monitor()


def _unparsed(trt: Trt, parser: Any) -> IncompatibleError:  # noqa: ANN401 - TensorRT's
    error = parser.get_error(0) if parser.num_errors else None
    layer, said = "?", "no reason given"
    if error is not None:
        named = getattr(error, "node_name", None)  # 10 and later
        layer = f"{named()!r} ({error.node_operator()})" if named else f"number {error.node()}"
        said = " ".join(str(error.desc()).split())[:_LONGEST]
    remedy = "replace the operator in the student, or let ONNX Runtime answer"
    if "quantizelinear" in layer.lower():
        remedy = "INT8 for CPUs is not for TensorRT: export with '--variant int8-trt', or let ONNX Runtime answer"
    return IncompatibleError(f"TensorRT {trt.__version__} does not take layer {layer}: {said}; {remedy}")


def unbuilt(trt: Trt, said: str) -> DeploymentError:
    """Say why there is no plan, from what TensorRT said, and what to do."""
    remedy = REMEDY if "memory" in said.lower() else "export the student again, or let ONNX Runtime answer"
    return DeploymentError(f"TensorRT {trt.__version__} built no plan: {said or 'no reason given'}; {remedy}")


def _say(phase: str, share: float) -> None:
    sys.stdout.buffer.write(msgspec.json.encode({"phase": phase, "share": share}) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    """Let the kernel end this process when the one that ordered the build is gone: nobody would read the plan."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


def main(folder: Path) -> int:
    """Do what a folder's order says; return the exit code."""
    _end_with_parent()
    try:
        order = msgspec.json.decode((folder / ORDER).read_bytes(), type=Order)
        timing = (folder / TIMING).read_bytes() if (folder / TIMING).exists() else b""
        built = build_plan(load_tensorrt(), folder, order, timing, _say)
        (folder / TIMING).write_bytes(built.timing)
        (folder / PLAN).write_bytes(built.plan)
    except RoadcastError as error:
        return _failed(folder, str(error))
    except OSError as error:
        return _failed(folder, f"the disk refuses: {error.strerror or error}; free space")
    except MemoryError:
        return _failed(folder, f"MemoryError; {REMEDY}")
    return 0


def _failed(folder: Path, reason: str) -> int:
    with suppress(OSError):  # a full disk; what was written of it is told
        (folder / ERROR).write_text(reason, encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
