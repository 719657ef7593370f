"""Proxy set: the unlabelled samples that every device answers, cut from a pack and packed as one blob. No torch.

Owns the blob's format and where anchors hide in it: safetensors with ``raw`` (N, *raw_shape) as a device stores samples
and, for series, ``scale`` (N, 2) float32, mean and spread of each window's sensor. A reader ignores tensors it does not
know; no label travels.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from devices.packs import ImagePack, open_pack
from devices.preprocess import Preprocess
from edge_models.samples import Samples
from edge_models.thinning import levelled, spaced
from edge_models.windows import cut_windows
from edge_protocol.errors import DataError
from edge_protocol.messages import MAX_SAMPLES
from edge_protocol.task import ImageInput, TaskSpec

MAX_HIDDEN = 256
"""Anchors hidden at most, whatever the share: windows come in thousands, and each costs every device an answer."""


def load_samples(path: str | Path, spec: TaskSpec, *, labelled: bool = False) -> Samples:
    """Read a pack as samples of a task: images as a camera would store them, series cut into windows.

    Classes are meant by name, whatever their order and however few of the task's; what devices know beside an image
    (``side``) stays out: no server learns from it.

    Args:
        path: of the pack.
        spec: the task.
        labelled: whether it is of no use without a label.

    Raises:
        DataError: the pack cannot be read, is not what the task takes, holds a class that the task lacks, or lacks what
            `labelled` asks for.
    """
    pack = open_pack(Path(path))
    if isinstance(pack, ImagePack) != isinstance(spec.input, ImageInput):
        raise DataError(f"{path}: a {type(pack).__name__} cannot feed task {spec.name!r} ({spec.kind})")
    samples = _images(pack, spec, path) if isinstance(pack, ImagePack) else cut_windows(pack.values, pack.time_s, spec)
    if labelled and not samples.labelled.any():
        raise DataError(f"{path}: none of its {len(samples)} samples is labelled; anchors and validation must be")
    return samples


def _images(pack: ImagePack, spec: TaskSpec, path: str | Path) -> Samples:
    assert isinstance(spec.input, ImageInput)
    if strange := [name for name in pack.classes if name not in spec.labels]:
        raise DataError(
            f"{path}: task {spec.name!r} knows no {', '.join(strange)}; its classes are {', '.join(spec.labels)}"
        )
    raw, preprocess = np.empty((len(pack), *spec.input.raw_shape), np.uint8), Preprocess(spec.input)
    for at, image in enumerate(pack.images):
        raw[at] = preprocess.raw(image)
    return Samples.of(raw, pack.labels_as(spec.labels))


@dataclass(frozen=True, eq=False)
class Asked:
    """What every device answers: proxies, and among them anchors whose answer only the server knows.

    Attributes:
        samples: all of them, in the order in which devices see them.
        proxies: (N,) int64, rows that are proxies; the students learn from these.
        hidden: (A,) int64, rows that are hidden anchors; only trust is learnt from these.
        anchors: the other labelled samples; the students learn from these.
    """

    samples: Samples
    proxies: npt.NDArray[np.int64]
    hidden: npt.NDArray[np.int64]
    anchors: Samples


def mingle(proxies: Samples, anchors: Samples, *, share: float, salt: bytes, most: int = MAX_HIDDEN) -> Asked:
    """Hide a share of the anchors among the proxies, where nobody who lacks the salt can tell which they are.

    Args:
        proxies: unlabelled; labels that they may have are not looked at.
        anchors: labelled or not; only labelled ones are hidden, of each class its last ones.
        share: of the labelled anchors, in [0, 1).
        salt: secret of the server; the same salt gives the same order.
        most: anchors that are hidden at most.
    """
    chosen = _last_share(anchors, share, most)
    kept = np.setdiff1d(np.arange(len(anchors)), chosen)
    if not len(chosen):
        return Asked(proxies, np.arange(len(proxies)), np.zeros(0, np.int64), anchors)
    both = Samples.concat([proxies, anchors.take(chosen)])
    digests = [hmac.digest(salt, np.ascontiguousarray(raw).tobytes(), "sha256") for raw in both.raw]
    order = np.array(sorted(range(len(both)), key=lambda at: (digests[at], at)), np.int64)
    return Asked(
        both.take(order),
        np.flatnonzero(order < len(proxies)),
        np.flatnonzero(order >= len(proxies)),
        anchors.take(kept),
    )


def drawn(asked: Asked, *, share: float, salt: bytes, number: int) -> Asked:
    """Draw which hidden anchors count in a round: of each class (or of all windows) a share, at least one.

    What devices are asked stays the same, so they fetch nothing anew and old reports can still be compared. The others
    pass for proxies, without their labels: an anchor is never trained on as such, whatever round it is.

    Args:
        asked: of `mingle`; its hidden anchors are what is drawn from.
        share: of each class, in (0, 1].
        salt: secret of the server.
        number: of the round; each draws anew, the same one always the same.
    """
    drawer = hmac.digest(salt, f"round {number}".encode(), "sha256")
    digests = {at: hmac.digest(drawer, asked.samples.raw[at].tobytes(), "sha256") for at in asked.hidden.tolist()}
    targets = asked.samples.targets[asked.hidden]
    groups = targets if targets.ndim == 1 else np.zeros(len(targets))
    chosen: list[int] = []
    for name in np.unique(groups):
        rows = sorted(asked.hidden[groups == name].tolist(), key=lambda at: (digests[at], at))
        chosen += rows[: ceil(share * len(rows))]
    hidden = np.array(sorted(chosen), np.int64)
    return replace(asked, hidden=hidden, proxies=np.setdiff1d(np.arange(len(asked.samples)), hidden))


def _last_share(anchors: Samples, share: float, most: int) -> npt.NDArray[np.int64]:
    """Rows of the last labelled anchors of each class (or in time), thinned to `most`: packs keep kin together.

    Classes are thinned alike: a rare one keeps all it has, and what it leaves is shared out among the others.
    """
    labelled = np.flatnonzero(anchors.labelled)
    groups = anchors.targets[labelled] if anchors.targets.ndim == 1 else np.zeros(len(labelled))
    tails = [labelled[groups == name] for name in np.unique(groups)]
    ends = [tail[len(tail) - int(share * len(tail)) :] for tail in tails]
    left = levelled(np.array([len(end) for end in ends], np.int64), most)
    return np.sort(
        np.concatenate([end[spaced(len(end), int(n))] for end, n in zip(ends, left, strict=True)] or [labelled])
    )


def unguarded(anchors: Samples, spec: TaskSpec, *, share: float) -> tuple[str, ...]:
    """Classes of which `mingle` hides no anchor although it hides some: nothing is learnt of whom to trust there."""
    if spec.kind != "classify" or not share:
        return ()
    held = set(anchors.targets[_last_share(anchors, share, MAX_HIDDEN)].tolist())
    return tuple(label for at, label in enumerate(spec.labels) if at not in held)


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
