"""From a PyTorch student to the files a device runs: template, weights payload, golden answers, parity gate.

`export.golden` needs neither torch nor onnx, because devices check with it; the rest is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.artifact import BuiltArtifact, build_artifact

__all__ = ["BuiltArtifact", "build_artifact"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that PEP 562 gives
    if name not in __all__:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    from export import artifact  # noqa: PLC0415 - loads torch

    return getattr(artifact, name)
