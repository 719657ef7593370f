"""Metrics for Prometheus without a port: a file for node_exporter's textfile collector. Owns no metric."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from devices.telemetry.metrics import exposition
from devices.telemetry.sampler import Sample
from edge_protocol.errors import StoreError


def write_textfile(path: Path, sample: Sample) -> None:
    """Replace the file as a whole: a collector never reads half of it. It is not synced: a power cut may lose it.

    Raises:
        StoreError: the disk refused.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(exposition(sample.values), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; name a folder that may be written"
        ) from error
