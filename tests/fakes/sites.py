"""A site of two devices with a certificate and wheels, on disk, beside an empty tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SITE: dict[str, Any] = {
    "agent": {
        "fleet": "city",
        "tier": "small",
        "task": "vehicle",
        "broker": {"host": "10.0.0.2", "ca_file": "/etc/roadcast/ca.pem"},
        "trusted_root": "/etc/roadcast/root.json",
        "sources": [{"name": "road", "uri": "rtsp://camera/stream"}],
    },
    "devices": {"cam-1": {}, "cam-2": {"sources": [{"name": "road", "uri": "csi://0"}]}},
    "install": {"copy": {"/etc/roadcast/ca.pem": "secrets/ca.pem"}, "wheels": "wheels"},
}


def make_site(folder: Path) -> Path:
    """Write it, with the files that it names; returns the site file."""
    (folder / "rootfs/etc").mkdir(parents=True)
    (folder / "secrets").mkdir()
    (folder / "secrets/ca.pem").write_text("certificate")
    (folder / "wheels").mkdir()
    (folder / "wheels/roadcast-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    (folder / "site.yaml").write_text(yaml.safe_dump(SITE))
    return folder / "site.yaml"
