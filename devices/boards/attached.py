"""What is plugged in: cameras and a modem. Owns no picture and no connection."""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from devices.boards.machine import Machine, whole

_CSI: Final = ("vi-output", "unicam", "rp1-cfe")
_NO_CAMERA: Final = re.compile(r"codec|isp|hevc|-dec\b|-enc\b|decoder|encoder|image_fx", re.IGNORECASE)
_KEY_VALUE: Final = re.compile(r"^modem\.generic\.(state|signal-quality\.value)[ \t]*:[ \t]*(\S+)", re.MULTILINE)


class Camera(msgspec.Struct, frozen=True):
    """A capture device.

    Attributes:
        device: such as ``/dev/video0``.
        name: as its driver calls it.
        bus: ribbon cable (``csi``) or ``usb`` and the rest.
    """

    device: str
    name: str
    bus: Literal["csi", "usb"]


class Modem(msgspec.Struct, frozen=True):
    """A cellular modem.

    Attributes:
        interface: network interface, such as ``wwan0``; None when only ModemManager knows it.
        state: as ModemManager says, such as ``connected``; None without ModemManager.
        signal: quality from 0 to 1; None when unknown.
    """

    interface: str | None
    state: str | None = None
    signal: float | None = None


def read_cameras(machine: Machine) -> tuple[Camera, ...]:
    """Capture devices; a camera's second node (metadata) and hardware codecs are left out."""
    cameras = []
    for path in machine.find("sys/class/video4linux/video*/name"):
        name, folder = machine.text(path), path.removesuffix("/name")
        if name is not None and not _NO_CAMERA.search(name) and (machine.whole(f"{folder}/index") or 0) == 0:
            device = f"/dev/{folder.rpartition('/')[2]}"
            cameras.append(Camera(device, name, "csi" if name.startswith(_CSI) else "usb"))
    return tuple(cameras)


def read_modem(machine: Machine) -> Modem | None:
    """The modem, from its network interface and from ModemManager; None when neither knows one."""
    states = [path for kind in ("wwan*", "ppp*") for path in machine.find(f"sys/class/net/{kind}/operstate")]
    interface = next((path.split("/")[3] for path in states if machine.text(path) is not None), None)
    said = dict(_KEY_VALUE.findall(machine.run_lines(_KEY_VALUE, "mmcli", "-m", "any", "--output-keyvalue")))
    if interface is None and not said:
        return None
    percent = whole(said.get("signal-quality.value"))
    signal = percent / 100 if percent is not None and 0 <= percent <= 100 else None  # noqa: PLR2004  # per cent
    return Modem(interface, said.get("state"), signal)
