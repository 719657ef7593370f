"""``roadcast flash``: put a device's agent, configuration and services into a root filesystem tree."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_protocol.errors import ConfigError
from roadcast.output import JsonFlag, emit, table, warn

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.provision.plan import Plan
    from devices.provision.rootfs import Change

app = typer.Typer()


@app.command()
def flash(
    *,
    site: Annotated[Path, typer.Option("--site", "-s", help="The site's YAML: agent, devices, install.")],
    rootfs: Annotated[Path, typer.Option(help="Root filesystem tree, such as Linux_for_Tegra/rootfs.")],
    device: Annotated[str | None, typer.Option(help="Which device of the site.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    json: JsonFlag = False,
) -> None:
    """Install a device into a tree; a second run changes nothing. Then write the tree with its maker's own tools."""
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
    import yaml

    from devices.provision.plan import make_plan
    from devices.provision.site import Site
    from edge_client.config import DeviceConfig
    from edge_protocol.config import load_config

    site = load_config(_bytes(site_file, "site").decode(errors="replace"), Site, where=str(site_file))
    tree = site.tree_of(device)
    load_config(yaml.safe_dump(tree), DeviceConfig, where=f"{site_file}: agent")
    folder, install = site_file.parent, site.install
    copies = {path: _bytes(folder / name, "install.copy") for path, name in install.copy.items()}
    wheels = {} if install.wheels is None else _wheels(folder / install.wheels)
    return make_plan(tree, install, copies, wheels)


def _wheels(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise ConfigError(f"install.wheels: {folder} is no folder; fill one with: pip download, pip wheel")
    return {path.name: _bytes(path, "install.wheels") for path in sorted(folder.glob("*.whl"))}


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror or error}") from error


def _changes(changes: tuple[Change, ...]) -> RenderableType:
    diffs = "\n".join(f"{change.path}\n{change.diff}\n" for change in changes if change.diff)
    kept = sum(change.action == "keep" for change in changes)
    rows = [(change.action, change.path) for change in changes if change.action != "keep"]
    listed = table(f"{len(rows)} to write, {kept} right already", ("action", "path"), rows)
    if isinstance(listed, str):
        return f"{diffs}{listed}"
    from rich.console import Group
    from rich.text import Text

    return Group(Text(diffs), listed) if diffs else listed
