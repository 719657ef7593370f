"""Other weights for a plan that is loaded already: seconds less than a build. Owns neither plan nor file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from devices.runners.cuda import Cuda
from devices.runners.payload import places
from devices.runners.trt_versions import Api, Trt
from edge_protocol.errors import DeploymentError

_NAMED = 3


class RefitRefusedError(DeploymentError):
    """The plan does not take these weights; a build does."""


def refit(trt: Trt, api: Api, engine: Any, student: Path, log: Any, cuda: Cuda) -> None:  # noqa: ANN401 - TensorRT's
    """Replace the weights of a plan by those of an ONNX file with the same graph.

    Whether the right ones arrived is for a parity check to say: 11.3 is known to drop a bias.

    Args:
        trt: the module.
        api: of its version.
        engine: not in use by anyone; where this raises, it must not be used.
        student: what `payload.lay_out` wrote.
        log: see `logger_of`.
        cuda: whose stream the copies go through.

    Raises:
        RefitRefusedError: built without that possibility, or a weight is unknown, missing or of another shape.
    """
    try:
        refitter = trt.Refitter(engine, log)
    except TypeError as error:  # pybind11: the factory returned nullptr
        raise RefitRefusedError(f"plan takes no other weights: {log.said() or error}") from error
    kept: list[Any] = []  # TensorRT reads the arrays when it refits, not when it is given them
    if api.parser_refitter:
        given = trt.OnnxParserRefitter(refitter, log).refit_from_file(str(student))
    else:
        given = _give(trt, refitter, student, kept)
    if not given:
        raise RefitRefusedError(f"plan refuses weights of {student.name}: {log.said() or 'no reason given'}")
    if missing := refitter.get_missing_weights():
        raise RefitRefusedError(f"plan wants {len(missing)} more weights: {sorted(missing)[:_NAMED]}")
    done = refitter.refit_cuda_engine_async(cuda.stream) if api.parser_refitter else refitter.refit_cuda_engine()
    cuda.wait()
    if not done:
        raise RefitRefusedError(f"plan could not be given other weights: {log.said() or 'no reason given'}")


def _give(trt: Trt, refitter: Any, student: Path, kept: list[Any]) -> bool:  # noqa: ANN401 - TensorRT's
    """Give weights one by one; every one of the file must be known to the plan."""
    known = set(refitter.get_all_weights())
    for name, place in places(student.read_bytes()).items():
        if name not in known:
            raise RefitRefusedError(f"plan has no weight {name!r} to replace: it was merged with another")
        size = int(np.prod(place.shape))
        array = np.fromfile(student.parent / place.file, place.dtype, size, offset=place.offset)
        kept.append(trt.Weights(array))
        if not refitter.set_named_weights(name, kept[-1]):
            return False
    return True
