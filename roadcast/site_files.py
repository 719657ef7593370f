"""Reads ``site.yaml`` and the files that it names, and makes plans of it. Owns no way of carrying one out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from devices.provision.plan import Plan, make_plan
from devices.provision.site import Site
from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError


def read_plan(site_file: Path, device: str | None) -> Plan:
    """Read a site file and what it names, and make the plan of one device.

    Raises:
        ConfigError: something in the site is wrong or missing.
    """
    return read_site(site_file).plan(device)


def read_site(site_file: Path) -> SiteFiles:
    """Read a site file and the files that it names, once for all its devices.

    Raises:
        ConfigError: something in the site is wrong or missing.
    """
    site = load_config(_bytes(site_file, "site").decode(errors="replace"), Site, where=str(site_file))
    folder, install = site_file.parent, site.install
    copies = {path: _bytes(folder / name, "install.copy") for path, name in install.copy.items()}
    wheels = {} if install.wheels is None else _wheels(folder / install.wheels)
    return SiteFiles(site_file, site, copies, wheels)


@dataclass(frozen=True)
class SiteFiles:
    """A site with the content of what it names."""

    file: Path
    site: Site
    copies: dict[str, bytes]
    wheels: dict[str, bytes]

    def plan(self, device: str | None) -> Plan:
        """The plan of one device.

        Raises:
            ConfigError: there is no such device, or its agent would not take its configuration.
        """
        tree = self.site.tree_of(device)
        load_config(yaml.safe_dump(tree), DeviceConfig, where=f"{self.file}: agent")
        return make_plan(tree, self.site.install, self.copies, self.wheels)


def _wheels(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise ConfigError(f"install.wheels: {folder} is no folder; fill one with: pip download, pip wheel")
    return {path.name: _bytes(path, "install.wheels") for path in sorted(folder.glob("*.whl"))}


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror or error}") from error
