"""Which calls each version of TensorRT has, as one table; and TensorRT itself, imported only when it is asked for.

Read from the symbols of NVIDIA's wheels 8.6.1, 10.0.1, 10.3.0, 10.13.3, 10.16.1 and 11.4.0; of 8.5 (JetPack 5) from its
documentation. None of them was run.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, Final, Literal, NamedTuple

from edge_protocol.errors import NotReadyError

Trt = Any
"""The module ``tensorrt``, which has no types."""


class Api(NamedTuple):
    """What a version offers.

    Attributes:
        explicit_batch: a network has to be created with EXPLICIT_BATCH.
        strongly_typed: whether the file's own number types can be binding: not, when a flag says so, always.
        precision_flags: FP16 and INT8 can be allowed for the whole network.
        refit_individual: single weights can be marked as replaceable, which leaves the fusions of the others.
        parser_refitter: weights can be replaced from an ONNX file, and on a stream.
        monitor: a build tells its progress.
    """

    explicit_batch: bool
    strongly_typed: Literal["never", "flag", "always"]
    precision_flags: bool
    refit_individual: bool
    parser_refitter: bool
    monitor: bool


TABLE: Final[tuple[tuple[tuple[int, int], Api], ...]] = (
    ((8, 5), Api(True, "never", True, False, False, False)),  # noqa: FBT003 - columns of the table
    ((10, 0), Api(False, "flag", True, False, True, True)),  # noqa: FBT003
    ((10, 3), Api(False, "flag", True, True, True, True)),  # noqa: FBT003
    ((11, 0), Api(False, "always", False, True, True, True)),  # noqa: FBT003
)
"""From which version on what holds: 8.5 and 8.6 (JetPack 5), 10.3 (6), 10.13 to 10.16 (7), 11."""
MAJORS: Final = frozenset({8, 10, 11})


def api_of(version: str) -> Api:
    """Return what a version such as ``10.3.0`` offers.

    Raises:
        NotReadyError: too old, or not in the table.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    found = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if found[0] not in MAJORS or found < TABLE[0][0]:
        raise NotReadyError(
            f"TensorRT {version}: the adapter knows 8.5, 8.6, 10 and 11; install the one of this board's JetPack, or "
            "use ONNX Runtime"
        )
    return next(api for since, api in reversed(TABLE) if since <= found)


def load_tensorrt() -> Trt:
    """Import TensorRT.

    Raises:
        NotReadyError: it is not there, its libraries are not, or the version is not in the table.
    """
    try:
        trt = importlib.import_module("tensorrt")
        version = str(trt.__version__)
    except (ImportError, OSError, AttributeError) as error:
        raise NotReadyError(
            f"TensorRT cannot be imported: {error}; on a Jetson it comes with JetPack (apt install python3-libnvinfer, "
            "and a virtual environment with --system-site-packages), elsewhere with 'pip install tensorrt'; students "
            "answer with ONNX Runtime without it"
        ) from error
    api_of(version)
    return trt
