"""``roadcast flash``: a device's agent, configuration and services into a tree, or onto running targets over SSH."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_protocol.errors import ConfigError
from roadcast.output import JsonFlag, emit, table, warn
from roadcast.ssh_options import KNOWN_HOSTS, AskPassword, Identity, KnownHosts, PasswordFile

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.provision.changes import Change
    from devices.provision.plan import Plan
    from devices.provision.site import Site
    from roadcast.ssh_fleet import Flashed

app = typer.Typer()


@app.command()
def flash(
    *,
    site: Annotated[Path, typer.Option("--site", "-s", help="The site's YAML: agent, devices, install, ssh.")],
    rootfs: Annotated[
        Path | None, typer.Option(help="Into a root filesystem tree, such as Linux_for_Tegra/rootfs.")
    ] = None,
    ssh: Annotated[
        str | None,
        typer.Option(help="Onto running targets: all, or names of the site and [DEVICE=][USER@]HOST[:PORT],…"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Which device of the site.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    known_hosts: KnownHosts = KNOWN_HOSTS,
    identity: Identity = None,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
    prefix: Annotated[str, typer.Option(help="Folder on the target that stands for its root.")] = "/",
    at_once: Annotated[int, typer.Option(min=1, max=100, help="Connections at a time.")] = 8,
    json: JsonFlag = False,
) -> None:
    """Install devices: into a tree, to be written with its maker's tools, or over SSH. A second run changes nothing."""
    if (rootfs is None) == (ssh is None):
        raise ConfigError("flash: name either a tree, --rootfs DIR, or targets, --ssh HOST")
    if rootfs is not None:
        _into_tree(site, rootfs, device, dry_run=dry_run, json=json)
        return
    from devices.provision.ssh import Job, Place
    from roadcast.ssh_fleet import flash_fleet, login_of, targets_of

    if not prefix.startswith("/") or not prefix.isprintable():
        raise ConfigError(f"--prefix: {prefix!r} is no absolute path")
    source = read_site(site)
    found = targets_of(source.site, ssh or "", device)
    jobs = [Job(name, target, source.plan(name)) for name, target in found.items()]
    login = login_of(known_hosts, identity, password_file, ask=ask_password)
    place = Place(prefix, source.site.install.python, live=prefix == "/")
    flashed, code = flash_fleet(jobs, login, place, at_once=at_once, dry_run=dry_run)
    emit(flashed, json, _fleet)
    if code:
        raise typer.Exit(code)


def _into_tree(site: Path, rootfs: Path, device: str | None, *, dry_run: bool, json: bool) -> None:
    from devices.provision.rootfs import carry_out

    plan = read_plan(site, device)
    if os.geteuid() != 0 and not dry_run:
        warn("not root: what is written belongs to this user on the device as well; run it with sudo for a real one")
    emit(carry_out(plan, rootfs, dry_run=dry_run), json, _changes)


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
    from roadcast.ssh_fleet import site_at

    site = site_at(site_file)
    assert site is not None
    folder, install = site_file.parent, site.install
    copies = {path: _bytes(folder / name, "install.copy") for path, name in install.copy.items()}
    copies |= {} if install.factory is None else _factory(folder / install.factory)
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
        import yaml

        from devices.provision.plan import make_plan
        from edge_client.config import DeviceConfig
        from edge_protocol.config import load_config

        tree = self.site.tree_of(device)
        load_config(yaml.safe_dump(tree), DeviceConfig, where=f"{self.file}: agent")
        return make_plan(tree, self.site.install, self.copies, self.wheels)


def _wheels(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise ConfigError(f"install.wheels: {folder} is no folder; fill one with: pip download, pip wheel")
    return {path.name: _bytes(path, "install.wheels") for path in sorted(folder.glob("*.whl"))}


def _factory(folder: Path) -> dict[str, bytes]:
    from devices.provision.site import FACTORY_DIR

    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if not files:
        raise ConfigError(f"install.factory: {folder} holds no file; write one with: roadcast release factory")
    return {f"{FACTORY_DIR}/{path.relative_to(folder).as_posix()}": _bytes(path, "install.factory") for path in files}


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror or error}") from error


def _changes(changes: tuple[Change, ...]) -> RenderableType:
    diffs = _diffs(changes)
    kept = sum(change.action == "keep" for change in changes)
    rows = [(change.action, change.path) for change in changes if change.action != "keep"]
    return _below(diffs, table(f"{len(rows)} to write, {kept} right already", ("action", "path"), rows))


def _fleet(flashed: list[Flashed]) -> RenderableType:
    from roadcast.ssh_fleet import summary

    title, rows = summary(flashed)
    planned = [one for one in flashed if one.outcome == "planned"]
    shown = "".join(
        f"{one.device}\n{_diffs(one.changes)}"
        + "".join(f"{change.action}\t{change.path}\n" for change in one.changes if change.action != "keep")
        for one in planned
    )
    return _below(shown, table(title, ("device", "host", "outcome", "writes", "error"), rows))


def _diffs(changes: tuple[Change, ...]) -> str:
    return "".join(f"{change.path}\n{change.diff}\n\n" for change in changes if change.diff)


def _below(text: str, listed: RenderableType) -> RenderableType:
    if isinstance(listed, str):
        return f"{text}{listed}"
    from rich.console import Group
    from rich.text import Text

    return Group(Text(text), listed) if text else listed
