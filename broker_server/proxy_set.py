"""Proxy set: the unlabelled samples that every device answers, cut from a pack and packed as one blob. No torch.

Owns the blob's format: safetensors with ``raw`` (N, *raw_shape) as a device stores samples and, for series, ``scale``
(N, 2) float32, mean and spread of each window's sensor. A reader ignores tensors it does not know; no label travels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from devices.packs import ImagePack, open_pack
from devices.preprocess import Preprocess
from edge_models.samples import Samples
from edge_models.windows import cut_windows
from edge_protocol.errors import DataError
from edge_protocol.messages import MAX_SAMPLES
from edge_protocol.task import ImageInput, TaskSpec


def load_samples(path: str | Path, spec: TaskSpec) -> Samples:
    """Read a pack as samples of a task: images as a camera would store them, series cut into windows.

    Raises:
        DataError: the pack cannot be read, is not what the task takes, or holds other classes.
    """
    pack = open_pack(Path(path))
    if isinstance(pack, ImagePack) != isinstance(spec.input, ImageInput):
        raise DataError(f"{path}: a {type(pack).__name__} cannot feed task {spec.name!r} ({spec.kind})")
    if not isinstance(pack, ImagePack):
        return cut_windows(pack.values, pack.time_s, spec)
    assert isinstance(spec.input, ImageInput)
    if tuple(pack.classes) != spec.labels:
        raise DataError(f"{path}: its classes {list(pack.classes)} are not {list(spec.labels)} of task {spec.name!r}")
    preprocess = Preprocess(spec.input)
    raw = np.stack([preprocess.raw(image) for image in pack.images])
    return Samples.of(raw, pack.labels.astype(np.int64), side=pack.side)


def build(samples: Samples) -> bytes:
    """Pack samples as the blob that devices pull; the same samples give the same bytes.

    Raises:
        DataError: no sample, or more than one report can answer.
    """
    if not 0 < len(samples) <= MAX_SAMPLES:
        raise DataError(f"a proxy set holds 1 to {MAX_SAMPLES} samples, not {len(samples)}; cut the proxy pack")
    tensors = {"raw": np.ascontiguousarray(samples.raw)}
    if samples.raw.dtype == np.float32:
        tensors["scale"] = np.ascontiguousarray(samples.scale)
    return save(tensors)


def read(data: bytes, spec: TaskSpec) -> npt.NDArray[np.generic]:
    """Return ``raw`` of a proxy blob, (N, *raw_shape) uint8 or float32.

    Raises:
        DataError: the bytes are not a proxy set, or one of another task.
    """
    try:
        raw = load(data)["raw"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"these {len(data)} bytes are not a proxy set: {error}") from error
    expected = np.uint8 if isinstance(spec.input, ImageInput) else np.float32
    if raw.shape[1:] != spec.input.raw_shape or raw.dtype != expected:
        raise DataError(
            f"proxies of {raw.dtype}{list(raw.shape[1:])} do not fit task {spec.name!r}: {spec.input.raw_shape}"
        )
    return raw
