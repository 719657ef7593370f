"""The half of the fake `tensorrt` that runs plans and replaces their weights; `tests.fakes.trt` makes the module."""

from __future__ import annotations

import ctypes
import enum
import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from tests.fakes.trt_table import Gated, Version

DataType = enum.Enum("DataType", ["FLOAT", "HALF", "INT8", "INT32", "BOOL"])
TYPES = {1: DataType.FLOAT, 10: DataType.HALF, 3: DataType.INT8, 6: DataType.INT32}


class ILogger:
    """The base of a logger."""

    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def log(self, severity: Any, message: str) -> None:
        """Overridden."""
        raise NotImplementedError


class Made(Gated):
    """Anything a builder makes."""

    def __init__(self, version: Version) -> None:
        self.version = version


class Engine(Made):
    """A loaded plan."""

    def __init__(self, version: Version, plan: bytes) -> None:
        super().__init__(version)
        head, _, body = plan.partition(b"\n")
        vars(self).update(header=json.loads(head), model=onnx.load_from_string(body), session=None)

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs."""
        return len(self._values())

    def _values(self) -> list[Any]:
        return [*self.model.graph.input, *self.model.graph.output]

    def get_tensor_name(self, number: int) -> str:
        """Its name."""
        return str(self._values()[number].name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Its shape, -1 for the batch."""
        value = next(v for v in self._values() if v.name == name)
        return tuple(-1 if d.dim_param else d.dim_value for d in value.type.tensor_type.shape.dim)

    def get_tensor_dtype(self, name: str) -> DataType:
        """Its type."""
        value = next(v for v in self._values() if v.name == name)
        return TYPES[value.type.tensor_type.elem_type]

    def get_tensor_profile_shape(self, name: str, number: int) -> list[list[int]]:
        """Least, usual and most."""
        shapes: list[list[int]] = self.header["shapes"][name]
        return shapes

    def create_execution_context(self) -> Context:
        """Begin to execute."""
        return Context(self)

    def replace(self, weights: dict[str, Any]) -> None:
        """Take other weights."""
        for tensor in self.model.graph.initializer:
            if tensor.name in weights:
                dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
                array = weights[tensor.name].reshape(tuple(tensor.dims)).astype(dtype)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        vars(self)["session"] = None

    def run(self, x: Any) -> list[Any]:
        """Compute, rounding as FP16 does where that is allowed."""
        if self.session is None:
            data = self.model.SerializeToString()
            vars(self)["session"] = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        found = self.session.run(None, {self.get_tensor_name(0): x})
        return [a.astype(np.float16).astype(np.float32) for a in found] if self.header["fp16"] else list(found)


class Context(Made):
    """Executes a plan at addresses."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.version)
        self._engine, self._addresses, self._input = engine, dict[str, int](), tuple[int, ...]()

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Say where a tensor is."""
        self._addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: Any) -> bool:
        """Say a batch; False beyond the profile."""
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        self._input = tuple(shape)
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def execute_async_v3(self, stream: int) -> bool:
        """Read the input, write the outputs."""
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        size = int(np.prod(self._input)) * 4
        x = np.frombuffer(ctypes.string_at(self._addresses[names[0]], size), np.float32).reshape(self._input)
        for name, array in zip(names[1:], self._engine.run(x), strict=True):
            data = np.ascontiguousarray(array, np.float32)
            ctypes.memmove(self._addresses[name], data.ctypes.data, data.nbytes)
        return True


class Runtime(Gated):
    """Loads plans of its own version and GPU."""

    capability = ""

    def __init__(self, log: Any) -> None:
        vars(self)["_log"] = log

    def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
        """Load a plan; None, and a line in the log, when it is another's."""
        try:
            engine = Engine(self.version, plan)
        except (ValueError, TypeError):
            self._log.log(ILogger.Severity.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        if tuple(engine.header["version"]) != self.version:
            self._log.log(ILogger.Severity.ERROR, "Version tag does not match")
            return None
        if engine.header["capability"] != self.capability:
            said = f"expecting compute {self.capability} got compute {engine.header['capability']}"
            self._log.log(ILogger.Severity.ERROR, f"generated on an incompatible device, {said}")
            return None
        return engine


class Refitter(Gated):
    """Gives a plan other weights."""

    def __init__(self, engine: Engine, log: Any) -> None:
        if not engine.header["refit"]:
            log.log(ILogger.Severity.ERROR, "engine was not built with REFIT")
            raise TypeError("factory function returned nullptr")
        vars(self).update(_engine=engine, _log=log, _given={})

    def get_all_weights(self) -> list[str]:
        """Names that can be replaced."""
        return list(self._engine.header["refit"])

    def set_named_weights(self, name: str, weights: Any) -> bool:
        """Take one; False when it is unknown or of another size."""
        sizes = {t.name: int(np.prod(t.dims)) for t in self._engine.model.graph.initializer}
        if name not in self.get_all_weights() or sizes[name] != weights.size:
            self._log.log(ILogger.Severity.ERROR, f"weights {name} do not fit")
            return False
        self._given[name] = weights
        return True

    def get_missing_weights(self) -> list[str]:
        """Nothing is fused here."""
        return []

    def refit_cuda_engine(self) -> bool:
        """Replace them."""
        self._engine.replace(self._given)
        return True

    def refit_cuda_engine_async(self, stream: int) -> bool:
        """Replace them, on a stream."""
        return bool(stream) and self.refit_cuda_engine()


class OnnxParserRefitter(Gated):
    """Gives a plan the weights of an ONNX file."""

    def __init__(self, refitter: Refitter, log: Any) -> None:
        vars(self)["_refitter"] = refitter

    def refit_from_file(self, path: str) -> bool:
        """Read the file and take all of its replaceable weights."""
        found = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        known = self._refitter.get_all_weights()
        return all(self._refitter.set_named_weights(name, array) for name, array in found.items() if name in known)
