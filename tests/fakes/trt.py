"""A faithful `tensorrt` of a given version: it has the calls of that version only, and computes with ONNX Runtime.

Strict where TensorRT is: flags that a version lacks or contradict each other build nothing, INT8 layers need INT8
allowed or strong types, a bias in INT32 is refused, plans load only in the version and on the GPU that made them.
"""

from __future__ import annotations

import enum
import json
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.fakes.trt_engine import TYPES, DataType, ILogger, Made, OnnxParserRefitter, Refitter, Runtime
from tests.fakes.trt_table import Gated, Version, exists

LayerType = enum.Enum("LayerType", ["QUANTIZE", "DEQUANTIZE", "OTHER"])
MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE", "DLA_MANAGED_SRAM"])
_BUILDER = ("FP16", "INT8", "TF32", "REFIT", "REFIT_INDIVIDUAL")


def fake_tensorrt(
    version: str, capability: str = "8.7", *, unsupported: str = "", said: str = "", drop_bias: bool = False
) -> Any:
    """Make the module.

    Args:
        version: such as ``10.3.0``.
        capability: compute capability of the GPU.
        unsupported: operator that the parser does not take.
        said: why no build succeeds, such as ``OutOfMemory``.
        drop_bias: as TensorRT 11.3 may, when a plan is built for refits: one bias counts as zero.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    numbers: Version = (major, minor)
    world = {"version": numbers, "capability": capability, "unsupported": unsupported, "said": said, "drop": drop_bias}
    module: Any = ModuleType("tensorrt")
    parts = {
        "Builder": Builder,
        "OnnxParser": OnnxParser,
        "Runtime": Runtime,
        "Refitter": Refitter,
        "OnnxParserRefitter": OnnxParserRefitter,
    }
    for name, kind in parts.items():
        if exists(name, numbers):
            setattr(module, name, type(name, (kind,), world))
    flags = {"NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"), "BuilderFlag": _BUILDER}
    for name, members in flags.items():
        there = [(m, members.index(m)) for m in members if exists(f"{name}.{m}", numbers)]
        setattr(module, name, enum.IntEnum(name, there))
    module.__version__, module.ILogger, module.Weights = version, ILogger, np.ascontiguousarray
    module.DataType, module.LayerType, module.MemoryPoolType = DataType, LayerType, MemoryPoolType
    if exists("IProgressMonitor", numbers):
        module.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
    return module


class Network(Made):
    """A parsed graph."""

    def __init__(self, version: Version, flags: int) -> None:
        super().__init__(version)
        self._flags, self._marked, self._model = flags, set[str](), onnx.ModelProto()

    @property
    def num_layers(self) -> int:
        """Nodes of the graph."""
        return len(self._model.graph.node)

    def get_layer(self, number: int) -> Any:
        """Type and first output's type of a node."""
        node = self._model.graph.node[number]
        kinds = {"QuantizeLinear": LayerType.QUANTIZE, "DequantizeLinear": LayerType.DEQUANTIZE}
        known = {v.name: TYPES.get(v.type.tensor_type.elem_type, DataType.FLOAT) for v in self._model.graph.value_info}
        layer = Made(self.version)
        vars(layer).update(type=kinds.get(node.op_type, LayerType.OTHER), num_outputs=1)
        dtype = known.get(node.output[0], DataType.FLOAT)
        vars(layer)["get_output"] = lambda _: type("Tensor", (), {"dtype": dtype})
        return layer

    def get_input(self, number: int) -> Any:
        """Shape of an input, -1 for what is free."""
        dims = self._model.graph.input[number].type.tensor_type.shape.dim
        return type("Tensor", (), {"shape": tuple(-1 if d.dim_param else d.dim_value for d in dims)})

    def mark_weights_refittable(self, name: str) -> bool:
        """Mark an initializer."""
        self._marked.add(name)
        return name in {tensor.name for tensor in self._model.graph.initializer}


class Config(Made):
    """Options of a build."""

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._flags, self._profiles, self._timing, self._workspace = {"TF32"}, list[Any](), b"", 0

    def set_flag(self, flag: Any) -> None:
        """Allow something."""
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        """Forbid something."""
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        """Bound the workspace."""
        assert pool is MemoryPoolType.WORKSPACE
        self._workspace = size

    def add_optimization_profile(self, profile: Any) -> int:
        """Keep the batches that are wanted."""
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, data: bytes) -> bytes:
        """Read an earlier cache."""
        return data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        """Use a cache of the same version only."""
        assert not ignore_mismatch
        self._timing = cache
        return True

    def get_timing_cache(self) -> Any:
        """Return what was learnt: one letter a build."""
        data = self._timing + b"t"
        return type("TimingCache", (), {"serialize": lambda self: data})()


class Profile(Made):
    """Batches that are wanted."""

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        """Say them."""
        assert least <= usual <= most
        vars(self)["shapes"] = {name: [list(shape) for shape in (least, usual, most)]}


class Builder(Gated):
    """Makes networks and plans."""

    capability, unsupported, said, drop = "", "", "", False

    def __init__(self, log: Any) -> None:
        vars(self)["_log"] = log

    def create_network(self, flags: int) -> Network:
        """Begin a network."""
        return Network(self.version, flags)

    def create_builder_config(self) -> Config:
        """Begin options."""
        return Config(self.version)

    def create_optimization_profile(self) -> Profile:
        """Begin a profile."""
        return Profile(self.version)

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        """Build a plan, or say why not and return None."""
        flags, model = vars(config)["_flags"], vars(network)["_model"]
        typed = self.version >= (11, 0) or bool(vars(network)["_flags"] & 2)
        quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
        trouble = self.said
        if typed and flags & {"FP16", "INT8"}:
            trouble = "strongly typed networks take no precision flags"
        if not typed and quantised and "INT8" not in flags:
            trouble = "int8 layers, but INT8 is not enabled"
        if not vars(config)["_profiles"] or not vars(config)["_workspace"]:
            trouble = trouble or "dynamic input without a profile, or no workspace limit"
        if trouble:
            self._log.log(ILogger.Severity.ERROR, f"[builder] {trouble}")
            return None
        if monitor := vars(config).get("progress_monitor"):
            monitor.phase_start("Building", None, 2)
            assert monitor.step_complete("Building", 0)
            monitor.phase_finish("Building")
        marked = sorted(vars(network)["_marked"]) if "REFIT_INDIVIDUAL" in flags else None
        refit = marked if marked is not None else [t.name for t in model.graph.initializer] * ("REFIT" in flags)
        if self.drop and refit:
            bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("bias"))
            bias.raw_data = bytes(len(bias.raw_data))
        header = {"version": self.version, "capability": self.capability, "refit": refit, "fp16": "FP16" in flags}
        header["shapes"] = vars(config)["_profiles"][0].shapes
        return json.dumps(header).encode() + b"\n" + bytes(model.SerializeToString())


class ParserError(Made):
    """Why a file was not taken."""

    def __init__(self, version: Version, number: int, node: Any, said: str) -> None:
        super().__init__(version)
        self._number, self._node, self._said = number, node, said

    def node(self) -> int:
        """Number of the layer."""
        return int(self._number)

    def node_name(self) -> str:
        """Its name."""
        return str(self._node.name or self._node.output[0])

    def node_operator(self) -> str:
        """Its operator."""
        return str(self._node.op_type)

    def desc(self) -> str:
        """What is wrong."""
        return self._said


class OnnxParser(Gated):
    """Reads ONNX files, with weights that lie beside them."""

    unsupported = ""

    def __init__(self, network: Network, log: Any) -> None:
        needed = self.version < (10, 0)
        if needed and not vars(network)["_flags"] & 1:
            raise RuntimeError("explicit batch is needed")
        vars(self).update(_network=network, _errors=[])

    @property
    def num_errors(self) -> int:
        """How many."""
        return len(self._errors)

    def get_error(self, number: int) -> ParserError:
        """Return one."""
        error: ParserError = self._errors[number]
        return error

    def parse_from_file(self, path: str) -> bool:
        """Read a file; False when a layer is not taken."""
        model = onnx.load(path)
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        for number, node in enumerate(model.graph.node):
            said = "No importer registered" if node.op_type == self.unsupported else ""
            if node.op_type == "DequantizeLinear" and types.get(node.input[0]) == TensorProto.INT32:
                said = "DequantizeLinear: input has type Int32 but must have type FP8, FP4, Int4, Int8, or UInt8"
            if said:
                self._errors.append(ParserError(self.version, number, node, said))
        vars(self._network)["_model"] = model
        return not self._errors
