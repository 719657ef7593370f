"""Which calls exist in which TensorRT, written down once more than in the product, from the symbols of its wheels."""

from __future__ import annotations

from typing import Any

Version = tuple[int, int]
ALWAYS: tuple[Version, Version] = ((0, 0), (99, 0))
SINCE_10: tuple[Version, Version] = ((10, 0), (99, 0))
ONLY_8: tuple[Version, Version] = ((0, 0), (9, 99))
UNTIL_10: tuple[Version, Version] = ((0, 0), (10, 99))

TABLE: dict[str, tuple[Version, Version]] = {
    "OnnxParserRefitter": SINCE_10,
    "IProgressMonitor": SINCE_10,
    "nptype": ((99, 0), (99, 0)),  # fails with any recent NumPy: never to be called
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": UNTIL_10,
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": SINCE_10,
    "BuilderFlag.FP16": UNTIL_10,
    "BuilderFlag.INT8": UNTIL_10,
    "BuilderFlag.REFIT_INDIVIDUAL": ((10, 3), (99, 0)),
    "Network.mark_weights_refittable": ((10, 3), (99, 0)),
    "Refitter.refit_cuda_engine_async": SINCE_10,
    "ParserError.node_name": SINCE_10,
    "ParserError.node_operator": SINCE_10,
    "Config.progress_monitor": SINCE_10,
    "Config.max_workspace_size": ONLY_8,
    "Config.int8_calibrator": UNTIL_10,
    "Builder.build_engine": ONLY_8,
    "Engine.num_bindings": ONLY_8,
    "Context.execute_async_v2": ONLY_8,
}
"""Name to first and last version; what is not named exists in all of 8.5 to 11."""


def exists(name: str, version: Version) -> bool:
    """Whether a version has a call, or a member of an enumeration."""
    first, last = TABLE.get(name, ALWAYS)
    return first <= version <= last


class Gated:
    """Its attributes exist only in the versions that have them, for reading and for writing."""

    version: Version

    def __getattribute__(self, name: str) -> Any:
        kind = type(self).__name__
        if not name.startswith("_") and name != "version" and not exists(f"{kind}.{name}", self.version):
            raise AttributeError(f"{kind!r} of TensorRT {self.version} has no attribute {name!r}")
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = type(self).__name__
        if not name.startswith("_") and name != "version" and not exists(f"{kind}.{name}", self.version):
            raise AttributeError(f"{kind!r} of TensorRT {self.version} has no attribute {name!r}")
        super().__setattr__(name, value)
