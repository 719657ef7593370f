"""What TensorRT's parser and builder say of a student where there is no GPU: `tensorrt-rtx`. No torch, no onnx.

The parser is the one that TensorRT has on a board, and types are as strict: an operator or a way of quantising that it
refuses here is refused there. A plan is built ahead of time, for a generation of GPU that need not be here; it cannot
be run, and plans for refits cannot be built, because both need a driver.
"""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from safetensors.numpy import save

from devices.runners.payload import lay_out, places
from devices.runners.trt_build import builder_of, parse, profile_of, unbuilt
from devices.runners.trt_log import logger_of
from devices.runners.trt_versions import Trt
from edge_protocol.errors import IncompatibleError, NotReadyError

GPU: Final = "SM86"
"""Desktop Ampere: beside Orin's 8.7, which this package does not have."""
_WORKSPACE: Final = 256 << 20
_BATCH: Final = 8


class RtxReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a student.

    Attributes:
        version: of `tensorrt-rtx`.
        gpu: what the plan was built for.
        layers: number of layers by type, of those that say something: quantise and dequantise.
        weights: number of external weights.
        fixed: names of those that no refit could replace.
        plan_bytes: size of the plan.
    """

    version: str
    gpu: str
    layers: dict[str, int]
    weights: int
    fixed: tuple[str, ...]
    plan_bytes: int


def load_rtx() -> Trt:
    """Import `tensorrt-rtx`.

    Raises:
        NotReadyError: it is not installed.
    """
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError) as error:
        raise NotReadyError(
            f"tensorrt-rtx cannot be imported: {error}; 'pip install roadcast[rtx]' brings TensorRT's parser for CPUs, "
            "about 100 MB"
        ) from error


def check_in_rtx(template: bytes, weights: bytes | None = None, *, trt: Trt | None = None) -> RtxReport:
    """Parse a student, see which weights a refit could replace, and build a plan of it.

    Args:
        template: as for a runner, or a self-contained file.
        weights: its payload; none for a self-contained file.
        trt: the module; imported when None.

    Raises:
        DeploymentError: the builder finds no way.
        IncompatibleError: TensorRT does not take it, or the payload is for another template.
        NotReadyError: `tensorrt-rtx` is not installed.
    """
    trt = trt or load_rtx()
    log = logger_of(trt)
    builder, names = builder_of(trt, log), list(places(template))
    with TemporaryDirectory(prefix="roadcast-rtx-") as name:
        student = lay_out(Path(name), template, save({}) if weights is None else weights)
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network, _parser = parse(trt, builder, student, flags, log)
        plan = builder.build_serialized_network(network, _config(trt, builder, network))
        if plan is None:
            raise unbuilt(trt, log.said())
        kinds = Counter(str(network.get_layer(n).type).rpartition(".")[2] for n in range(network.num_layers))
        return RtxReport(
            version=str(trt.__version__),
            gpu=GPU,
            layers={kind: kinds[kind] for kind in ("QUANTIZE", "DEQUANTIZE") if kinds[kind]},
            weights=len(names),
            fixed=tuple(name for name in names if not network.mark_weights_refittable(name)),
            plan_bytes=len(bytes(plan)),
        )


def _config(trt: Trt, builder: Any, network: Any) -> Any:  # noqa: ANN401 - TensorRT's
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, GPU), 0):
        raise IncompatibleError(f"tensorrt-rtx {trt.__version__} builds nothing for {GPU}: install 1.7 of it")
    config.add_optimization_profile(profile_of(builder, network, _BATCH))
    return config
