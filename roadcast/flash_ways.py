"""`roadcast flash`: each way to carry out the plans of a site, and what is shown of it. Owns no option."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import typer

from devices.provision import boot_partition, rootfs
from devices.provision import image as images
from devices.provision.changes import Change
from devices.provision.site import Site
from devices.provision.writing import has_table
from edge_protocol.errors import ConfigError, RoadcastError, StoreError
from roadcast import flash_shown as shown
from roadcast.disk_writing import block_map_beside, write_disk
from roadcast.given_options import flags
from roadcast.maker_flash import flash_board, warn_of, warn_of_tree
from roadcast.output import emit, progress, warn
from roadcast.site_files import read_site, write_out
from roadcast.ssh_fleet import site_at

_WAYS = "--rootfs DIR, --image FILE (and --disk /dev/sdX), --cloud-init DIR, --deb DIR or --ssh HOST"

_ALWAYS = frozenset({"dry_run", "json"})
_HEARS = {
    "rootfs": frozenset({"site", "device", "rootfs", "then_flash"}),
    "image": frozenset({"site", "device", "image", "out", "partition", "seed"}),
    "cloud_init": frozenset({"site", "device", "cloud_init"}),
    "deb": frozenset({"site", "device", "deb"}),
    "ssh": frozenset(
        {"site", "device", "ssh", "prefix", "at_once", "known_hosts", "identity", "password_file", "ask_password"}
    ),
}
"""The options that each way goes by; the others say nothing to it."""
_ONTO_DISK = frozenset({"image", "disk", "bmap", "yes"})
_DEVICE_ONTO_DISK = frozenset({"site", "device", "image", "disk", "partition", "seed", "yes"})


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says; each attribute is the option of its name in `flash_options`."""

    site: Path | None
    device: str | None
    rootfs: Path | None
    then_flash: str | None
    image: Path | None
    out: Path | None
    partition: int | None
    disk: Path | None
    bmap: Path | None
    yes: bool
    seed: bool
    cloud_init: Path | None
    deb: Path | None
    ssh: str | None
    prefix: str
    at_once: int
    dry_run: bool
    json: bool


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """How to get in over SSH; see `flash_options`."""

    known_hosts: Path
    identity: Path | None
    password_file: Path | None
    ask_password: bool


def install(asked: Asked, secrets: Secrets, names: Collection[str]) -> None:
    """Go the one way that is asked for.

    Args:
        asked: what the command line says.
        secrets: how to get in over SSH.
        names: of the options that stand there.

    Raises:
        ConfigError: none, or several, or options that do not go together.
        Exit: some targets failed.
    """
    ways = [way for way in _HEARS if getattr(asked, way) is not None]
    if len(ways) != 1:
        raise ConfigError(f"flash: name one way: {_WAYS}")
    _refuse_ignored(asked, ways[0], names)
    site = site_at(asked.site)
    if site is not None and asked.cloud_init is None and not asked.seed:
        _warn_of_network(site, asked.device)
    if asked.disk is not None and asked.image is not None:
        _onto_disk(asked, asked.image, asked.disk)
        return
    if asked.site is None or asked.disk is not None or (asked.device or "").startswith("/dev/"):
        says = "flash: --site site.yaml says what is installed; an image is written with --image FILE --disk /dev/sdX"
        raise ConfigError(says)
    if asked.rootfs is not None and asked.then_flash is not None:
        _through_maker(asked, asked.site, asked.rootfs, asked.then_flash)
    elif asked.ssh is not None:
        _over_ssh(asked, asked.site, asked.ssh, secrets)
    else:
        emit(_into_files(asked, asked.site), asked.json, shown.changed)


def _refuse_ignored(asked: Asked, way: str, names: Collection[str]) -> None:
    """Refuse options that the way would pass over without a word."""
    hears = _HEARS[way]
    if asked.image is not None and asked.disk is not None:
        hears = _ONTO_DISK if asked.site is None else _DEVICE_ONTO_DISK
    if way == "rootfs" and asked.then_flash is not None:
        hears = hears | {"yes"}
    if lost := [name for name in names if name not in hears | _ALWAYS]:
        heard = [name for name in (way, "site", "disk") if name in names and name not in lost]
        raise ConfigError(f"{flags(lost)}: passed over by flash with {flags(heard)}; leave that out")


def _warn_of_network(site: Site, device: str | None) -> None:
    """Say that a network which the site gives is not set; one under a running connection would be cut off."""
    left = [name for name in site.network if device in {None, name}]
    if left:
        says = f"network of {', '.join(left)}: not set, only a seed for cloud-init carries it (--cloud-init, or --image"
        warn(f"{says} with --seed); this way leaves what the system has")


def _warn_of_files(file: Path, devices: Iterable[str | None]) -> None:
    """Say which files an agent is told of that nothing brings: most of them it does not start without."""
    site, missing = site_at(file), dict[str, list[str]]()
    assert site is not None
    for device in devices:
        for path in site.brought_by_nobody(device):
            missing.setdefault(path, []).append(str(site.tree_of(device).get("device")))
    for path, names in missing.items():
        says = f"{path}: the agent of {', '.join(names)} is told of it, and nothing brings it"
        warn(f"{says}; name it in install.copy, unless it is on the device already")


def _into_files(asked: Asked, site: Path) -> tuple[Change, ...]:
    _warn_of_files(site, [asked.device])
    if asked.rootfs is not None:
        _warn_of_owners(asked.rootfs)
        source = read_site(site)
        changes = rootfs.carry_out(source.plan(asked.device), asked.rootfs, dry_run=asked.dry_run)
        warn_of_tree(asked.rootfs, source.site.install.machine, source.site.install.python)
        return changes
    if asked.image is not None:
        return _into_image(asked, site, asked.image, asked.out)
    return write_out(site, asked.device, cloud_init=asked.cloud_init, deb=asked.deb, dry_run=asked.dry_run)


def _warn_of_owners(tree: Path) -> None:
    """Say whom what is written belongs to on the device as well, where that is not root."""
    etc = tree / "etc"
    if os.geteuid() != 0:
        warn("not root: what is written belongs to this user on the device as well; run it with sudo for a real one")
    elif etc.is_dir() and etc.stat().st_uid != 0:
        warn("the tree's folders are not root's, and will not be on the device: unpack it anew, with sudo")


def _through_maker(asked: Asked, site: Path, tree: Path, where: str) -> None:
    _warn_of_files(site, [asked.device])
    source = read_site(site)
    plan, machine = source.plan(asked.device), source.site.install.machine
    handed = flash_board(plan, tree, where, machine, yes=asked.yes, dry_run=asked.dry_run)
    emit(handed, asked.json, shown.handed)


def _into_image(asked: Asked, site: Path, image: Path, out: Path | None) -> tuple[Change, ...]:
    progress(f"looking into {image}; a change is made in a copy")
    source = read_site(site)
    machine, python = source.site.install.machine, source.site.install.python
    if asked.seed:
        with suppress(RoadcastError):  # its root may be of another kind, which cloud-init does not mind
            warn_of(images.check(image, machine, python))
        return boot_partition.write_seed(
            source.seed(asked.device), image, out=out, partition=asked.partition, dry_run=asked.dry_run, warn=warn
        )
    plan = source.plan(asked.device)
    warn_of(images.check(image, machine, python, partition=asked.partition))
    return images.carry_out(plan, image, out=out, partition=asked.partition, dry_run=asked.dry_run)


def _onto_disk(asked: Asked, image: Path, disk: Path) -> None:
    """Write an image as it is, with its block map; or, with a site, a copy that holds the device, without one."""
    if not has_table(image):
        warn(f"{image} has no partition table: few boards start from such a disk")
    if asked.site is None:
        bmap = asked.bmap or block_map_beside(image)
        emit(write_disk(image, disk, bmap, yes=asked.yes, dry_run=asked.dry_run), asked.json, shown.written)
        return
    _warn_of_files(asked.site, [asked.device])
    try:
        beside = TemporaryDirectory(prefix=".roadcast-", dir=image.absolute().parent)
    except OSError as error:
        raise StoreError(f"{image}: no copy can be made beside it: {error.strerror}; put it elsewhere") from error
    with beside as folder:
        made = Path(folder) / "image"
        _into_image(asked, asked.site, image, made)
        written = write_disk(image if asked.dry_run else made, disk, None, yes=asked.yes, dry_run=asked.dry_run)
    emit(written, asked.json, shown.written)


def _over_ssh(asked: Asked, site: Path, targets: str, secrets: Secrets) -> None:
    from devices.provision.ssh import Job, Place
    from roadcast.ssh_fleet import flash_fleet, login_of, targets_of

    if not asked.prefix.startswith("/") or not asked.prefix.isprintable():
        raise ConfigError(f"--prefix: {asked.prefix!r} is no absolute path")
    source = read_site(site)
    found = targets_of(source.site, targets, asked.device)
    _warn_of_files(site, found)
    jobs = [Job(name, target, source.plan(name)) for name, target in found.items()]
    login = login_of(secrets.known_hosts, secrets.identity, secrets.password_file, ask=secrets.ask_password)
    setup = source.site.install
    place = Place(asked.prefix, setup.python, live=asked.prefix == "/", machine=setup.machine)
    flashed, code = flash_fleet(jobs, login, place, at_once=asked.at_once, dry_run=asked.dry_run)
    emit(flashed, asked.json, shown.fleet)
    if code:
        raise typer.Exit(code)
