"""What ``site.yaml`` says: the agent's configuration of one device or of a fleet, and how it is installed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from devices.latency.fit import Budgets
from devices.provision.places import CONFIG_DIR, STATE_DIR
from edge_protocol.errors import ConfigError

Absolute = Annotated[str, Meta(pattern=r"^(/[A-Za-z0-9._+-]+)+\Z", max_length=1024)]
"""An absolute path of plain characters: it stands in unit files."""

_Plain = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:+-]{1,96}\Z")]


class CameraMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which USB camera is meant; what is given must all fit. ``udevadm info /dev/video0`` tells what there is.

    Attributes:
        vendor: ``ID_VENDOR_ID``, four hexadecimal digits.
        product: ``ID_MODEL_ID``, the same.
        serial: ``ID_SERIAL_SHORT``.
        port: ``ID_PATH``: the socket that it is plugged into, for cameras without a serial number.
    """

    vendor: Annotated[str, Meta(pattern=r"^[0-9a-f]{4}\Z")] | None = None
    product: Annotated[str, Meta(pattern=r"^[0-9a-f]{4}\Z")] | None = None
    serial: _Plain | None = None
    port: _Plain | None = None

    def __post_init__(self) -> None:
        if all(value is None for value in (self.vendor, self.serial, self.port)):
            raise ConfigError("install.cameras: say vendor, serial or port of each")


class InstallConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the agent is installed.

    Attributes:
        prefix: folder of wheels and virtual environment.
        venv: the virtual environment, elsewhere: on a partition that can be written to, where the root cannot.
        user: that the agent runs as; made at boot.
        groups: it belongs to; cameras and GPUs want ``video`` and ``render``.
        python: the board's Python, 3.10 or newer.
        system_packages: the virtual environment sees the board's own packages (OpenCV with GStreamer, TensorRT).
        machine: the board's processor.
        wheels: folder beside the site file with every wheel, for a board without internet; None when Roadcast is
            there already.
        copy: file on the device → file beside the site file: certificates, packs; below `CONFIG_DIR`.
        factory: folder beside the site file that ``roadcast release factory`` wrote; every device boots into it until
            it has taken a release.
        tokens: folder beside the site file with a file for each device to be enrolled, called like it: what
            ``roadcast ca token --out`` wrote. The device enrols itself at its first boot.
        memory_mb: that agent and training may take together.
        log_mb: that the board's journal may take.
        volatile_logs: keep the journal in memory, which spares an SD card.
        state_mb: that the agent's state may take; the replay store must leave a quarter of it. None for no limit.
        power_mode: by its name, as ``nvpmodel -q`` prints it, set at every boot; None to leave it.
        cameras: name → which USB camera is called ``/dev/roadcast/NAME``, whatever number it gets.
        watchdog_s: seconds until the agent is started again when a camera's driver or a runtime does not come back.
    """

    prefix: Absolute = "/opt/roadcast"
    venv: Absolute | None = None
    user: Annotated[str, Meta(pattern="^[a-z_][a-z0-9_-]{0,30}\\Z")] = "roadcast"
    groups: tuple[Annotated[str, Meta(pattern="^[a-z_][a-z0-9_-]{0,30}\\Z")], ...] = ("video", "render")
    python: Absolute = "/usr/bin/python3"
    system_packages: bool = True
    machine: Literal["aarch64", "x86_64"] = "aarch64"
    wheels: str | None = None
    copy: dict[Absolute, str] = {}
    factory: str | None = None
    tokens: str | None = None
    memory_mb: Annotated[int, Meta(ge=256, le=1 << 20)] = 1536
    log_mb: Annotated[int, Meta(ge=8, le=10_000)] = 64
    volatile_logs: bool = True
    state_mb: Annotated[int, Meta(ge=16, le=1 << 24)] | None = None
    power_mode: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,40}\Z")] | None = None
    cameras: dict[Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,30}\Z")], CameraMatch] = {}
    watchdog_s: Annotated[int, Meta(ge=30, le=3600)] = 300

    def __post_init__(self) -> None:
        for path in [self.prefix, self.environment, self.python, *self.copy]:
            if ".." in path.split("/") or "." in path.split("/"):
                raise ConfigError(f"install: {path!r} must be a path without '.' and '..'")
        for path in self.copy:
            if not path.startswith(f"{CONFIG_DIR}/") or path == f"{CONFIG_DIR}/device.yaml":
                raise ConfigError(f"install.copy: {path!r} must lie below {CONFIG_DIR}, and not be device.yaml")
        if len(set(map(repr, self.cameras.values()))) < len(self.cameras):
            raise ConfigError("install.cameras: two names are said of the same camera")

    @property
    def environment(self) -> str:
        """Folder of the virtual environment."""
        return self.venv or f"{self.prefix}/venv"


class SshConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a device is reached over SSH.

    Attributes:
        host: its name or address.
        port: of its SSH server.
        user: to log in as; root, or one whose sudo asks for no password.
        fingerprint: of its host key, as ``ssh-keygen -lf`` prints it; without it the key must be in known_hosts.
    """

    host: Annotated[str, Meta(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:_%-]{0,254}$")]
    port: Annotated[int, Meta(ge=1, le=65535)] = 22
    user: Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_.-]{0,31}$")] = "root"
    fingerprint: Annotated[str, Meta(pattern="^SHA256:[A-Za-z0-9+/]{43}$")] | None = None


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        agent: what `roadcast client run` takes, the same for every device.
        devices: by device what is different there; sections are merged, lists are replaced.
        install: see there.
        ssh: by device where it is reached.
        budgets: what serving may cost on these boards, for `roadcast devices fit`.
        network: by device its network configuration, netplan's form (version 2), for cloud-init.
    """

    agent: dict[str, Any]
    devices: dict[str, dict[str, Any]] = {}
    install: InstallConfig = InstallConfig()
    ssh: dict[str, SshConfig] = {}
    budgets: Budgets = Budgets()
    network: dict[str, dict[str, Any]] = {}

    def __post_init__(self) -> None:
        known = [*self.devices, *filter(None, [self.agent.get("device")])]
        for name, settings in self.network.items():
            if name not in known:
                raise ConfigError(
                    f"network: no {name!r} in the site; it has {', '.join(map(str, known)) or 'no device'}"
                )
            if settings.get("version") != 2:  # noqa: PLR2004  # netplan's form has no other
                raise ConfigError(f"network: {name}: netplan's form, which begins with version: 2")

    def tree_of(self, device: str | None) -> dict[str, Any]:
        """The agent's configuration of one device, as a tree.

        Args:
            device: its name; None for the only one.

        Raises:
            ConfigError: there is no such device, or the file has several and none was named.
        """
        if device is None and len(self.devices) > 1:
            raise ConfigError(f"devices: the site has several, name one of {', '.join(self.devices)}")
        name = device or next(iter(self.devices), None)
        if name is None:
            return {"state_dir": STATE_DIR, **self.agent}
        if name not in self.devices and name != self.agent.get("device"):
            known = ", ".join(self.devices) or str(self.agent.get("device"))
            raise ConfigError(f"devices: no {name!r} in the site; it has {known}")
        return _merged({"state_dir": STATE_DIR, **self.agent}, {"device": name, **self.devices.get(name, {})})

    def brought_by_nobody(self, device: str | None) -> list[str]:
        """Files and folders below `CONFIG_DIR` that the agent's configuration names and `install.copy` does not."""
        named = dict.fromkeys(text.partition("://")[2] or text for text in _texts(self.tree_of(device)))
        own = [path for path in named if path.startswith(f"{CONFIG_DIR}/")]
        brought = self.install.copy
        return [path for path in own if not any(f"{file}/".startswith(f"{path.rstrip('/')}/") for file in brought)]


def _texts(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for below in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(below)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    mixed = dict(under)
    for key, value in over.items():
        below = mixed.get(key)
        mixed[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return mixed
