"""``roadcast flash``: a device's agent, configuration and services into a tree or image, or onto targets over SSH."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edge_protocol.errors import ConfigError
from roadcast import flash_options as options
from roadcast.output import JsonFlag, emit, table, warn

if TYPE_CHECKING:
    from rich.console import RenderableType

    from devices.provision.changes import Change
    from devices.provision.ssh import Login
    from roadcast.ssh_fleet import Flashed

app = typer.Typer()
_WAYS = "--rootfs DIR, --image FILE (and --disk /dev/sdX) or --ssh HOST"


@app.callback(invoke_without_command=True)
def flash(
    context: typer.Context,
    *,
    site: options.SiteFile = None,
    device: options.Device = None,
    rootfs: options.Rootfs = None,
    image: options.Image = None,
    out: options.Out = None,
    partition: options.PartitionNumber = None,
    disk: options.Disk = None,
    bmap: options.BlockMap = None,
    yes: options.Yes = False,
    ssh: options.Ssh = None,
    known_hosts: options.KnownHosts = Path("~/.ssh/known_hosts"),
    identity: options.Identity = None,
    password_file: options.PasswordFile = None,
    ask_password: options.AskPassword = False,
    prefix: options.Prefix = "/",
    at_once: options.AtOnce = 8,
    dry_run: options.DryRun = False,
    json: JsonFlag = False,
) -> None:
    """Install devices: into a tree or an image, or over SSH. A second run changes nothing."""
    if context.invoked_subcommand is not None:
        return
    if sum(way is not None for way in (rootfs, image, ssh)) != 1:
        raise ConfigError(f"flash: name one way: {_WAYS}")
    if disk is not None and image is not None:
        _onto_disk(site, image, partition, disk, bmap, device, yes=yes, dry_run=dry_run, json=json)
        return
    if site is None or disk is not None or (device or "").startswith("/dev/"):
        raise ConfigError(
            "flash: --site site.yaml names what is installed, --image FILE --disk /dev/sdX what is written"
        )
    if rootfs is not None:
        _into_tree(site, rootfs, device, dry_run=dry_run, json=json)
    elif image is not None:
        from devices.provision.image import carry_out
        from roadcast.site_files import read_plan

        plan = read_plan(site, device)
        emit(carry_out(plan, image, out=out, partition=partition, dry_run=dry_run), json, _changes)
    else:
        from devices.provision.ssh import Login
        from roadcast.ssh_fleet import read_password

        login = Login(known_hosts.expanduser(), identity, read_password(password_file, ask=ask_password))
        _over_ssh(site, ssh or "", device, login, prefix, at_once=at_once, dry_run=dry_run, json=json)


def _over_ssh(
    site: Path, ssh: str, device: str | None, login: Login, prefix: str, *, at_once: int, dry_run: bool, json: bool
) -> None:
    from devices.provision.ssh import Job, Place
    from roadcast.site_files import read_site
    from roadcast.ssh_fleet import flash_fleet, targets_of

    if not prefix.startswith("/") or not prefix.isprintable():
        raise ConfigError(f"--prefix: {prefix!r} is no absolute path")
    source = read_site(site)
    found = targets_of(source.site, ssh, device)
    jobs = [Job(name, target, source.plan(name)) for name, target in found.items()]
    place = Place(prefix, source.site.install.python, live=prefix == "/")
    flashed, code = flash_fleet(jobs, login, place, at_once=at_once, dry_run=dry_run)
    emit(flashed, json, _fleet)
    if code:
        raise typer.Exit(code)


def _onto_disk(
    site: Path | None,
    image: Path,
    partition: int | None,
    disk: Path,
    bmap: Path | None,
    device: str | None,
    *,
    yes: bool,
    dry_run: bool,
    json: bool,
) -> None:
    """Write an image as it is, with its block map; or, with a site, a copy that holds the device, without one."""
    from roadcast.disk_writing import block_map_beside, write_disk

    if site is None:
        written = write_disk(image, disk, bmap or block_map_beside(image), yes=yes, dry_run=dry_run)
    elif bmap is not None:
        raise ConfigError("--bmap: what a site puts into the image is not in its block map; leave one of them out")
    else:
        from tempfile import TemporaryDirectory

        from devices.provision.image import carry_out
        from roadcast.site_files import read_plan

        plan = read_plan(site, device)
        with TemporaryDirectory(prefix=".roadcast-", dir=image.absolute().parent) as folder:
            made = Path(folder) / "image"
            carry_out(plan, image, out=made, partition=partition, dry_run=dry_run)
            written = write_disk(image if dry_run else made, disk, None, yes=yes, dry_run=dry_run)
    emit(written, json, lambda done: f"{done.bytes} bytes of {done.image_bytes} written to {done.disk} and read back")


def _into_tree(site: Path, rootfs: Path, device: str | None, *, dry_run: bool, json: bool) -> None:
    from devices.provision.rootfs import carry_out
    from roadcast.site_files import read_plan

    plan = read_plan(site, device)
    if os.geteuid() != 0 and not dry_run:
        warn("not root: what is written belongs to this user on the device as well; run it with sudo for a real one")
    emit(carry_out(plan, rootfs, dry_run=dry_run), json, _changes)


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
