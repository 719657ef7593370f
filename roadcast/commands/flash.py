"""``roadcast flash``: a device's agent, configuration and services into trees and images, onto cards, or over SSH."""

from __future__ import annotations

import typer

from edge_protocol.errors import ConfigError
from roadcast import flash_options as options
from roadcast.given_options import flags, given
from roadcast.output import JsonFlag
from roadcast.ssh_options import KNOWN_HOSTS, AskPassword, Identity, KnownHosts, PasswordFile

app = typer.Typer()


@app.callback(invoke_without_command=True)
def flash(
    context: typer.Context,
    *,
    site: options.SiteFile = None,
    device: options.Device = None,
    rootfs: options.Rootfs = None,
    then_flash: options.ThenFlash = None,
    image: options.Image = None,
    out: options.Out = None,
    partition: options.PartitionNumber = None,
    disk: options.Disk = None,
    bmap: options.BlockMap = None,
    yes: options.Yes = False,
    seed: options.Seed = False,
    cloud_init: options.CloudInit = None,
    deb: options.Deb = None,
    ssh: options.Ssh = None,
    known_hosts: KnownHosts = KNOWN_HOSTS,
    identity: Identity = None,
    password_file: PasswordFile = None,
    ask_password: AskPassword = False,
    prefix: options.Prefix = "/",
    at_once: options.AtOnce = 8,
    dry_run: options.DryRun = False,
    json: JsonFlag = False,
) -> None:
    """Install devices: into a tree or image, onto a card, as a package, or over SSH. A second run changes nothing."""
    options_given = given(context)
    if context.invoked_subcommand is not None:
        if options_given:
            raise ConfigError(f"{flags(options_given)}: not of flash {context.invoked_subcommand}; leave that out")
        return
    from roadcast.flash_ways import Asked, Secrets, install

    # fmt: off
    asked = Asked(
        site=site, device=device, rootfs=rootfs, then_flash=then_flash, image=image, out=out, partition=partition,
        disk=disk, bmap=bmap,
        yes=yes, seed=seed, cloud_init=cloud_init, deb=deb, ssh=ssh, prefix=prefix, at_once=at_once,
        dry_run=dry_run, json=json,
    )
    secrets = Secrets(
        known_hosts=known_hosts, identity=identity, password_file=password_file, ask_password=ask_password
    )
    # fmt: on
    install(asked, secrets, options_given)


@app.command()
def wheels(
    *,
    board: options.Board,
    out: options.WheelFolder,
    jetpack: options.JetPackName = None,
    python: options.PythonVersion = None,
    wheel: options.OwnWheel = None,
    constraints: options.Constraints = None,
    extra: options.Extras = None,
    find_links: options.FindLinks = None,
    offline: options.Offline = False,
    json: JsonFlag = False,
) -> None:
    """Fetch every wheel that a board needs, with hashes, so that it installs them without a network."""
    from devices.provision.wheels import target_of
    from roadcast.flash_shown import wheelhouse
    from roadcast.output import emit, progress
    from roadcast.wheelhouse import fill

    target = target_of(board, jetpack, python)
    progress(f"fetching wheels for Python {target.python}, glibc {target.glibc}, {target.machine}")
    filled = fill(
        out,
        target,
        wheel=wheel,
        constraints=constraints,
        extras=extra or (),
        find_links=find_links or (),
        offline=offline,
    )
    emit(filled, json, wheelhouse)
