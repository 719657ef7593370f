"""The options of `roadcast flash`, each with its help; the command itself says what they do together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SiteFile = Annotated[Path | None, typer.Option("--site", "-s", help="The site's YAML: agent, devices, install, ssh.")]
Device = Annotated[str | None, typer.Option(help="Which device of the site.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]

Rootfs = Annotated[Path | None, typer.Option(help="Into a root filesystem tree, such as Linux_for_Tegra/rootfs.")]
ThenFlash = Annotated[
    str | None, typer.Option(help="With --rootfs: have NVIDIA's tool flash BOARD[:DISK], in recovery mode on USB.")
]
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

Prefix = Annotated[str, typer.Option(help="Folder on the target that stands for its root.")]
AtOnce = Annotated[int, typer.Option(min=1, max=100, help="Connections at a time.")]

Board = Annotated[str, typer.Option(help="Its short name, such as jetson-orin-nano; docs/boards.md has the table.")]
WheelFolder = Annotated[Path, typer.Option("--out", "-o", help="The folder; `install.wheels` of a site names it.")]
JetPackName = Annotated[str | None, typer.Option("--jetpack", help="The JetPack on it, such as 6.")]
PythonVersion = Annotated[str | None, typer.Option("--python", help="Its Python, in place of the system's: 3.11.")]
OwnWheel = Annotated[Path | None, typer.Option("--wheel", help="Roadcast's own; without it built from the source.")]
Constraints = Annotated[Path | None, typer.Option(help="Pinned versions; without it those of the source.")]
Extras = Annotated[list[str] | None, typer.Option("--extra", help="Of Roadcast, such as train, which brings torch.")]
FindLinks = Annotated[
    list[Path] | None, typer.Option("--find-links", help="A folder of wheels in which pip looks first.")
]
Offline = Annotated[bool, typer.Option("--offline", help="Only look into --find-links.")]
