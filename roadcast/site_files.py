"""Reads ``site.yaml`` and the files that it names, and makes plans of it. Owns no way of carrying one out."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from devices.provision import cloud_init as nocloud
from devices.provision import deb as debian
from devices.provision.changes import Change
from devices.provision.folder import write_folder
from devices.provision.places import FACTORY_DIR
from devices.provision.plan import Plan, check_budget, make_plan
from devices.provision.site import Site
from devices.provision.wheels import REQUIREMENTS, requirements
from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError
from roadcast.ssh_fleet import read_secret, site_at


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
    site = site_at(site_file)
    assert site is not None
    folder, install = site_file.parent, site.install
    copies = {path: _bytes(folder / name, "install.copy") for path, name in install.copy.items()}
    if install.tokens is not None and not (folder / install.tokens).is_dir():
        raise ConfigError(
            f"install.tokens: {folder / install.tokens} is no folder; fill one with: roadcast ca token --out"
        )
    copies |= {} if install.factory is None else _factory(folder / install.factory)
    wheels = {} if install.wheels is None else _wheels(folder / install.wheels)
    return SiteFiles(site_file, site, copies, wheels)


def write_out(
    site_file: Path, device: str | None, *, cloud_init: Path | None, deb: Path | None, dry_run: bool
) -> tuple[Change, ...]:
    """Write the plan of one device as a seed of cloud-init, or as a Debian package, into a folder.

    Raises:
        ConfigError: something in the site is wrong or missing.
        StoreError: the disk refused.
    """
    source = read_site(site_file)
    if cloud_init is not None:
        return write_folder(cloud_init, source.seed(device), stale=nocloud.BESIDE, dry_run=dry_run)
    name, machine = str(source.site.tree_of(device).get("device")), source.site.install.machine
    made = debian.package(source.plan(device), name, machine, version("roadcast"))
    return write_folder(deb or Path(), {made.file: made.content}, dry_run=dry_run)


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
        config = load_config(yaml.safe_dump(tree), DeviceConfig, where=f"{self.file}: agent")
        check_budget(self.site.install, config.replay.budget_bytes)
        return make_plan(tree, self.site.install, self.copies, self.wheels, self._token(str(tree.get("device"))))

    def seed(self, device: str | None) -> dict[str, bytes]:
        """The seed of one device for cloud-init, by file name; see `plan` for errors."""
        name = str(self.site.tree_of(device).get("device"))
        return nocloud.seed(self.plan(device), name, self.site.network.get(name))

    def _token(self, device: str) -> str | None:
        """What the folder of tokens holds for a device."""
        if self.site.install.tokens is None:
            return None
        path = self.file.parent / self.site.install.tokens / device
        return read_secret(path, "install.tokens") if path.exists() else None


def _wheels(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise ConfigError(f"install.wheels: {folder} is no folder; fill one with: pip download, pip wheel")
    wheels = {path.name: _bytes(path, "install.wheels") for path in sorted(folder.glob("*.whl"))}
    listed = folder / REQUIREMENTS
    if listed.is_file() and _bytes(listed, "install.wheels").decode(errors="replace") != requirements(wheels):
        raise ConfigError(
            f"install.wheels: {listed} lists other wheels; run `roadcast flash wheels` again, or delete it"
        )
    return wheels


def _factory(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise ConfigError(f"install.factory: {folder} holds no file; write one with: roadcast release factory")
    return {f"{FACTORY_DIR}/{path.relative_to(folder).as_posix()}": _bytes(path, "install.factory") for path in files}


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror or error}") from error
