"""What holds for the whole package once any part of it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = [
    "devices.runners.ort_runner",
    "devices.runners.ort_providers",
    "devices.doctor.provider_trial",
    "export.artifact",
]


@pytest.mark.parametrize("part", PARTS)
def test_onnx_runtime_reports_nothing_to_its_maker(part: str, tmp_path: Path) -> None:
    """It opens no store of events and makes no identifier of this machine, whichever part of ours loads it."""
    told = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    code = f"import {part}, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", code], env=told | {"HOME": str(tmp_path)}, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))
