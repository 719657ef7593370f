"""An install plan as a Debian package: ar, control and data, the same bytes for the same plan. Pure.

What lies below ``/etc/roadcast`` is a conffile: dpkg asks before it replaces what was changed on the device. Units and
rules are not, so that dpkg removes those that a newer plan leaves out. Links that enable units are left to systemctl.
Members are not compressed: wheels are already, and a compressor's version would change the bytes.
Source: deb(5), Debian policy 4.6, appendix "Binary packages".
"""

from __future__ import annotations

import io
import tarfile
from hashlib import md5, sha256
from typing import Final

import msgspec

from devices.provision.changes import check_paths, parents
from devices.provision.places import CONFIG_DIR
from devices.provision.plan import Plan, PlannedLink
from devices.provision.units import AGENT_UNIT, activation

NAME: Final = "roadcast-device"
_TIME: Final = 1_767_225_600
"""Of every member, in seconds since 1970: the beginning of 2026. A package does not depend on when it was made."""
_ARCHITECTURES: Final = {"aarch64": "arm64", "x86_64": "amd64"}


class Package(msgspec.Struct, frozen=True):
    """A package: the name of its file, and its bytes."""

    file: str
    content: bytes


def package(plan: Plan, device: str, machine: str, version: str) -> Package:
    """Make a package of a plan.

    Args:
        plan: of the device.
        device: its name.
        machine: its processor, as ``uname -m`` says it.
        version: of Roadcast; a hash of the plan is added, so that another configuration is another version.

    Raises:
        ConfigError: a path would leave the tree.
    """
    check_paths(plan)
    units = [link for link in plan.links if parents(link.path)[-1].endswith(".wants")]
    data = _data(plan, [link for link in plan.links if link not in units])
    whole = f"{version}+{sha256(data).hexdigest()[:12]}"
    names = " ".join(dict.fromkeys(link.path.rpartition("/")[2] for link in units))
    scripts = {
        "postinst": _postinst(names, activation({file.path for file in plan.files})),
        "prerm": _prerm(names),
        "postrm": _POSTRM,
    }
    listed = "".join(f"{file.path}\n" for file in plan.files if file.path.startswith(f"{CONFIG_DIR}/"))
    sums = "".join(f"{md5(file.content, usedforsecurity=False).hexdigest()}  {file.path[1:]}\n" for file in plan.files)
    architecture = _ARCHITECTURES[machine]
    control = {
        "control": _control(device, architecture, whole, sum(len(file.content) for file in plan.files)),
        "conffiles": listed,
        "md5sums": sums,
        **scripts,
    }
    members = {"debian-binary": b"2.0\n", "control.tar": _tar_of(control), "data.tar": data}
    archive = b"!<arch>\n" + b"".join(_member(name, content) for name, content in members.items())
    return Package(f"{NAME}_{whole}_{architecture}.{device}.deb", archive)


def _control(device: str, architecture: str, version: str, size: int) -> str:
    return f"""Package: {NAME}
Version: {version}
Architecture: {architecture}
Maintainer: Roadcast
Installed-Size: {-(-size // 1024)}
Depends: python3 (>= 3.10), python3-venv, systemd
Section: misc
Priority: optional
Description: Roadcast device agent of {device}
 Configuration, services and wheels of one device of a fleet.
"""


def _postinst(units: str, activate: str) -> str:
    enable = f"  systemctl enable {units}\n" if units else ""
    steps = "".join(f"  {line}\n" for line in activate.splitlines())
    return f'#!/bin/sh\nset -e\nif [ "$1" = configure ]; then\n{enable}{steps}fi\n'


def _prerm(units: str) -> str:
    stop = f"  if [ -d /run/systemd/system ]; then systemctl stop {AGENT_UNIT}; fi\n"
    disable = f"  systemctl disable {units}\n" if units else ""
    return f'#!/bin/sh\nset -e\nif [ "$1" = remove ]; then\n{stop}{disable}fi\n'


_POSTRM: Final = "#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n"


def _data(plan: Plan, links: list[PlannedLink]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as archive:
        paths = [*(file.path for file in plan.files), *(link.path for link in links)]
        folders = {folder for path in paths for folder in parents(path)}
        for folder in sorted(folders):
            archive.addfile(_entry(f".{folder.rstrip('/')}/", 0o755, kind=tarfile.DIRTYPE))
        for file in sorted(plan.files, key=lambda one: one.path):
            entry = _entry(f".{file.path}", file.mode)
            entry.size = len(file.content)
            archive.addfile(entry, io.BytesIO(file.content))
        for link in sorted(links, key=lambda one: one.path):
            entry = _entry(f".{link.path}", 0o777, kind=tarfile.SYMTYPE)
            entry.linkname = link.target
            archive.addfile(entry)
    return written.getvalue()


def _tar_of(files: dict[str, str]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(_entry("./", 0o755, kind=tarfile.DIRTYPE))
        for name, text in files.items():
            content = text.encode()
            entry = _entry(f"./{name}", 0o755 if text.startswith("#!") else 0o644)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def _entry(name: str, mode: int, *, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, _TIME
    entry.uname = entry.gname = "root"
    return entry


def _member(name: str, content: bytes) -> bytes:
    """A member of an ar archive: a header of 60 bytes, the content, and a newline where its length is odd."""
    header = f"{name:<16}{_TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return header.encode() + content + b"\n" * (len(content) % 2)
