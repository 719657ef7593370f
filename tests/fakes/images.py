"""Disk images made by tools that are not ours (sfdisk, mkfs), and read by them (debugfs, mtools)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_TOOLS = {
    "debugfs": "e2fsprogs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "sfdisk": "fdisk",
}
_MISSING = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=PATH) is None})
SKIP_REASON = f"not here: apt-get install {' '.join(_MISSING)}" if _MISSING else ""
"""Why tests with images are skipped here; empty when they run."""
MIB = 1 << 20
ROOT, BOOT, OTHER = "root", "boot", "other"


def tool(*argv: str, given: bytes = b"") -> bytes:
    """What a program prints; it must succeed."""
    program = shutil.which(argv[0], path=PATH)
    assert program is not None, argv[0]
    return subprocess.run([program, *argv[1:]], input=given, capture_output=True, check=True, timeout=60).stdout


def disk_image(path: Path, parts: Sequence[tuple[str, int]], *, label: str = "gpt") -> Path:
    """Make an image.

    Args:
        path: of the file.
        parts: what each partition holds (`ROOT`, `BOOT`, `OTHER`: an ext4 without a root filesystem) and its MiB.
        label: ``gpt`` or ``dos``.
    """
    with path.open("wb") as file:
        file.truncate((2 + sum(size for _, size in parts)) * MIB)
    lines = [f"label: {label}", *(f"size={size}MiB" for _, size in parts)]
    tool("sfdisk", "-q", str(path), given="\n".join(lines).encode())
    for (what, size), part in zip(parts, layout(path), strict=True):
        if what == BOOT:
            tool("mkfs.vfat", "-n", "BOOT", "--offset", str(part["start"]), str(path), str(size * 1024))
            tool("mcopy", "-i", f"{path}@@{part['start'] * 512}", "-", "::config.txt", given=b"arm_64bit=1\n")
        else:
            make_ext4(path, part["start"] * 512, size, root=what == ROOT)
    return path


def make_ext4(path: Path, offset: int, mib: int, *, root: bool = True, more: Sequence[str] = ()) -> None:
    """Make an ext4 filesystem in a file, with the folders of a root filesystem; `more` is for mkfs."""
    tree = path.parent / f"{path.name}.tree"
    for folder in ("etc/systemd/system", "usr/bin", "var/lib") if root else ("data",):
        (tree / folder).mkdir(parents=True)
    if root:
        (tree / "etc/hostname").write_text("board\n")
    options = f"offset={offset},root_owner=0:0"
    tool("mkfs.ext4", "-q", "-F", "-L", "rootfs", "-E", options, *more, "-d", str(tree), str(path), f"{mib}M")
    shutil.rmtree(tree)


def layout(path: Path) -> list[dict[str, Any]]:
    """What sfdisk reads: start and size in sectors."""
    table: dict[str, Any] = json.loads(tool("sfdisk", "-J", str(path)))
    found: list[dict[str, Any]] = table["partitiontable"]["partitions"]
    return found


def partition_of(image: Path, number: int) -> bytes:
    """What a partition holds."""
    found = layout(image)[number - 1]
    with image.open("rb") as file:
        file.seek(found["start"] * 512)
        return file.read(found["size"] * 512)


class Inside:
    """An ext filesystem at an offset of an image, as debugfs sees it."""

    def __init__(self, image: Path, offset: int = 0) -> None:
        self._at = f"{image}?offset={offset}"

    def ask(self, order: str, *options: str) -> str:
        """What debugfs prints."""
        return tool("debugfs", *options, "-R", order, self._at).decode(errors="replace")

    def read(self, path: str) -> bytes:
        """What a file holds."""
        return tool("debugfs", "-R", f"cat {path}", self._at)

    def facts(self, path: str) -> tuple[str, str, str]:
        """Permission bits in octal, user and group."""
        folder, _, name = path.rpartition("/")
        lines = (line.split("/") for line in self.ask(f"ls -p {folder or '/'}").splitlines())
        (found,) = [parts for parts in lines if len(parts) > 5 and parts[5] == name]
        return found[2], found[3], found[4]

    def target(self, path: str) -> str:
        """What a link says."""
        return self.ask(f"stat {path}").partition('Fast link dest: "')[2].partition('"')[0]

    def check(self) -> None:
        """Every structure is whole."""
        tool("e2fsck", "-fn", self._at)


def block_map(content: bytes, spans: Sequence[tuple[int, int]], *, block: int = 4096) -> bytes:
    """A block map as bmaptool writes it, of blocks from the first to the last of each span."""
    ranges = "".join(
        f'<Range chksum="{sha256(content[first * block : (last + 1) * block]).hexdigest()}"> {first}-{last} </Range>\n'
        for first, last in spans
    )
    text = (
        f'<?xml version="1.0" ?>\n<!-- as bmaptool does -->\n<bmap version="2.0">\n'
        f"<ImageSize> {len(content)} </ImageSize>\n<BlockSize> {block} </BlockSize>\n"
        f"<BlocksCount> {-(-len(content) // block)} </BlocksCount>\n<ChecksumType> sha256 </ChecksumType>\n"
        f"<BmapFileChecksum> {'0' * 64} </BmapFileChecksum>\n<BlockMap>\n{ranges}</BlockMap>\n</bmap>\n"
    )
    return text.replace("0" * 64, sha256(text.encode()).hexdigest(), 1).encode()
