"""Variants of an exported student on disk: built, judged, written or taken away; owns no pass and no gate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

import msgspec

from edge_models.samples import Samples
from edge_protocol.errors import StoreError
from edge_protocol.manifest import VARIANTS as RELEASED
from export.folder import STATE, TEMPLATE, WEIGHTS, read_card, read_part, write_artifact
from export.graph import inlined
from export.passes.gates import Limits
from export.passes.ship import to_artifact
from export.passes.variants import F4, VARIANTS, Slowdown, Variant, VariantReport, build_variant

REPORT = "report.json"


def forget_variants(folder: Path) -> None:
    """Take away the variants of an earlier build: they are of other weights.

    Raises:
        StoreError: the disk refuses.
    """
    for variant in VARIANTS:
        with _writing(folder / variant):
            if (folder / variant).exists():
                rmtree(folder / variant)


def write_variant(
    folder: Path,
    variant: Variant,
    *,
    calibration: F4,
    held: tuple[F4, Samples],
    limits: Limits,
    slowdown: Slowdown | None,
) -> VariantReport:
    """Build one variant of a folder's student, and write it when it passes its gate.

    INT8 becomes a folder of its own, an artifact as any other, as a release carries it; ``fp16`` becomes one ONNX file,
    which TensorRT parses. The report is written in any case.

    Args:
        folder: of ``export build``.
        variant: which.
        calibration: as for `build_variant`.
        held: likewise.
        limits: what it has to keep.
        slowdown: as for `build_variant`.

    Raises:
        NotReadyError: the folder is no artifact.
        StoreError: the disk refuses.
    """
    card = read_card(folder)
    full = inlined(read_part(folder, TEMPLATE), read_part(folder, WEIGHTS))
    made, report = build_variant(
        variant, card.task, full, calibration=calibration, held=held, limits=limits, slowdown=slowdown
    )
    artifact = to_artifact(full, made, held[0], card.parameters) if made and variant in RELEASED else None
    place = folder / variant
    with _writing(place):
        place.mkdir(exist_ok=True)
        (place / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        if variant != "int8-cpu" and made is not None:
            (place / f"{variant}.onnx").write_bytes(made)
    if artifact is not None:
        write_artifact(place, artifact, card.task, card.tier, precision=variant)
        if (folder / STATE).is_file():  # distillation goes on from the FP32 weights
            (place / STATE).write_bytes(read_part(folder, STATE))
    return report


def self_contained(path: Path) -> bytes:
    """The student of a folder, or of an ONNX file, as one file with its weights.

    Raises:
        NotReadyError: no such file, or no artifact.
        ExportError: the folder's files do not belong together.
    """
    if path.is_dir():
        return inlined(read_part(path, TEMPLATE), read_part(path, WEIGHTS))
    return read_part(path.parent, path.name)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{place}: cannot be written: {error.strerror or error}; free space, or name another"
        ) from error
