"""The options of `roadcast flash`, each with its help; the command itself says what they do together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SiteFile = Annotated[Path | None, typer.Option("--site", "-s", help="The site's YAML: agent, devices, install, ssh.")]
Device = Annotated[str | None, typer.Option(help="Which device of the site.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]

Rootfs = Annotated[Path | None, typer.Option(help="Into a root filesystem tree, such as Linux_for_Tegra/rootfs.")]
Image = Annotated[Path | None, typer.Option(help="Into the root filesystem of a disk image, without root.")]
Out = Annotated[Path | None, typer.Option(help="Where the changed image is put; without it in its place.")]
PartitionNumber = Annotated[
    int | None, typer.Option("--partition", help="The image's partition, where it has several root filesystems.")
]
Disk = Annotated[
    Path | None, typer.Option(help="Write the image over a whole disk, such as /dev/sdb, and read it back.")
]
BlockMap = Annotated[
    Path | None, typer.Option("--bmap", help="The image's block map; without it FILE.bmap, if it is there.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a disk is written over.")]
Seed = Annotated[
    bool, typer.Option("--seed", help="Into the image's boot partition (FAT), for a system with cloud-init.")
]
CloudInit = Annotated[
    Path | None, typer.Option("--cloud-init", help="As a seed for cloud-init's NoCloud, into a folder.")
]
Deb = Annotated[Path | None, typer.Option(help="As a Debian package, into a folder.")]
Ssh = Annotated[
    str | None,
    typer.Option(help="Onto running targets: all, or names of the site and [DEVICE=][USER@]HOST[:PORT],…"),
]

KnownHosts = Annotated[Path, typer.Option(help="Host keys, for targets without a fingerprint in the site.")]
Identity = Annotated[Path | None, typer.Option(help="Private key; without it the agent's and the usual ones.")]
PasswordFile = Annotated[Path | None, typer.Option(help="File with the password; or set ROADCAST_SSH_PASSWORD.")]
AskPassword = Annotated[bool, typer.Option("--ask-password", help="Ask for the password.")]
Prefix = Annotated[str, typer.Option(help="Folder on the target that stands for its root.")]
AtOnce = Annotated[int, typer.Option(min=1, max=100, help="Connections at a time.")]
