"""Wheels of a few hundred bytes that pip takes: a module, metadata, and a program that says its version."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path


def wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    needs: Sequence[str] = (),
    tags: str = "py3-none-any",
    extras: str = "",
) -> Path:
    """Write a wheel.

    Args:
        folder: where.
        name: of the distribution.
        version: of it.
        needs: its requirements.
        tags: Python, ABI and platform.
        extras: the extra that it has.
    """
    info = f"{name}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {need}" for need in needs),
    ]
    files = {
        f"{name}.py": f"def main() -> None:\n    print({version!r})\n",
        f"{info}/METADATA": "\n".join([*lines, *([f"Provides-Extra: {extras}"] if extras else [])]) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tags}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for member, text in files.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tags}.whl"
    path.write_bytes(written.getvalue())
    return path
