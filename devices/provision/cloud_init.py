"""An install plan as a NoCloud seed of cloud-init: ``user-data``, ``meta-data``, ``network-config``. Pure.

Small files travel in ``user-data``; larger ones, the wheels, lie beside it under their hashes, and a script that knows
the hashes puts them in their places. Host keys of SSH are kept: a new seed is a new instance to cloud-init, which would
make new ones, and pinned fingerprints would no longer fit. Sources: cloud-init's reference of NoCloud, ``write_files``,
``runcmd`` and network configuration version 2.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from shlex import quote
from typing import Any, Final

import yaml

from devices.provision.changes import check_paths, parents
from devices.provision.plan import Plan, PlannedFile
from devices.provision.units import activation

_INLINE: Final = 65536
"""A larger file lies beside ``user-data``, which is parsed as YAML and kept in memory."""
BESIDE: Final = re.compile(r"roadcast-[0-9a-f]{32}")
"""Names of larger files beside ``user-data``; those of an earlier seed are of no use to this one."""
ANY_WIRED: Final[Mapping[str, Any]] = {"version": 2, "ethernets": {"wired": {"match": {"name": "e*"}, "dhcp4": True}}}
"""Network configuration where the site says none: an address by DHCP on everything with a cable."""
_SEED: Final = "/var/lib/cloud/seed/nocloud /boot/firmware /boot"
_LABELS: Final = "CIDATA cidata system-boot bootfs"


def seed(plan: Plan, device: str, network: Mapping[str, Any] | None) -> dict[str, bytes]:
    """Make a seed.

    Args:
        plan: of the device.
        device: its name, which becomes the host's.
        network: netplan's form, version 2; None for DHCP on every wired interface.

    Returns:
        Content by file name. It goes to the root of a filesystem with the label ``CIDATA``, to
        ``/var/lib/cloud/seed/nocloud``, or to the boot partition of an image that looks for it there.

    Raises:
        ConfigError: a path would leave the tree.
    """
    check_paths(plan)
    large = [file for file in plan.files if len(file.content) > _INLINE]
    user_data = {
        "ssh_deletekeys": False,
        "write_files": [_written(file) for file in plan.files if len(file.content) <= _INLINE],
        "runcmd": [["sh", "-euc", _script(plan, large)]],
    }
    told = b"#cloud-config\n" + yaml.safe_dump(user_data, sort_keys=False, width=120).encode()
    wired = yaml.safe_dump(dict(network or ANY_WIRED), sort_keys=False).encode()
    instance = sha256(told + wired)  # what lies beside is in the script by its hash
    host = re.sub(r"[^a-z0-9-]+", "-", device.lower()).strip("-")[:63] or "roadcast"
    meta_data = {"instance-id": f"{host}-{instance.hexdigest()[:16]}", "local-hostname": host}
    return {
        "user-data": told,
        "meta-data": yaml.safe_dump(meta_data, sort_keys=False).encode(),
        "network-config": wired,
        **{_beside(file): file.content for file in large},
    }


def _beside(file: PlannedFile) -> str:
    return f"roadcast-{_digest(file)[:32]}"


def _digest(file: PlannedFile) -> str:
    return sha256(file.content).hexdigest()


def _written(file: PlannedFile) -> dict[str, str]:
    return {
        "path": file.path,
        "owner": "root:root",
        "permissions": f"0{file.mode:o}",
        "encoding": "b64",
        "content": b64encode(file.content).decode(),
    }


def _script(plan: Plan, large: list[PlannedFile]) -> str:
    """What runs once at the first boot, as root: find the seed, place what is large, then the links and systemd."""
    lines = _search(_beside(large[0])) if large else []
    for file in large:
        path, folder = quote(file.path), quote(parents(file.path)[-1])
        lines += [
            f"mkdir -p {folder}",
            f'install -m {file.mode:o} "$seed/{_beside(file)}" {path}',
            f"echo {quote(f'{_digest(file)}  {file.path}')} | sha256sum -c --quiet",
        ]
    for link in plan.links:
        lines += [f"mkdir -p {quote(parents(link.path)[-1])}"]
        lines += [f"ln -sfn {quote(link.target)} {quote(link.path)}"]
    return "\n".join([*lines, activation({file.path for file in plan.files})])


def _search(name: str) -> list[str]:
    return [
        "seed=",
        f"for place in {_SEED}; do",
        f'  if [ -e "$place/{name}" ]; then seed=$place; fi',
        "done",
        f"for label in {_LABELS}; do",
        '  if [ -z "$seed" ] && disk=$(blkid -L "$label"); then',
        "    mkdir -p /run/roadcast-seed",
        '    mount -o ro "$disk" /run/roadcast-seed',
        f'    if [ -e "/run/roadcast-seed/{name}" ]; then seed=/run/roadcast-seed; else umount /run/roadcast-seed; fi',
        "  fi",
        "done",
        'if [ -z "$seed" ]; then echo "roadcast: the seed with the wheels is not found" >&2; exit 1; fi',
    ]
