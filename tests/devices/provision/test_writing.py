"""An image on a disk: what is written, read back, refused, and left when it goes wrong. A file stands for the disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from devices.provision.disks import disk_of
from devices.provision.writing import spans_of, write
from edge_protocol.errors import CheckFailedError, ConfigError, DataError, NotReadyError, StoreError
from tests.fakes.images import block_map

MIB = 1 << 20
IMAGE = os.urandom(9 * MIB + 700)
SPANS = ((0, 9), (256, 1300), (2300, 2304))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of nine and a bit MiB, and an old disk of ten."""
    (tmp_path / "x.img").write_bytes(IMAGE)
    (tmp_path / "disk").write_bytes(b"old!" * (10 * MIB // 4))
    return tmp_path / "x.img"


def _write(image: Path, *, mapped: bool = False) -> tuple[int, list[tuple[str, int, int]], bytes]:
    heard: list[tuple[str, int, int]] = []
    path = image.parent / "disk"
    spans = spans_of(image, image.parent / "x.bmap" if mapped else None)
    count = write(image, disk_of(path), spans, lambda *told: heard.append(told))
    return count, heard, path.read_bytes()


def test_an_image_is_written_and_read_back(image: Path) -> None:
    """Every byte, the rest of the disk as it was, and progress to the end, twice."""
    count, heard, disk = _write(image)
    assert count == len(IMAGE)
    assert disk == IMAGE + (b"old!" * (10 * MIB // 4))[len(IMAGE) :]
    for what in ("writing", "reading back"):
        done = [done for said, done, total in heard if said == what and total == len(IMAGE)]
        assert done == sorted(done)
        assert done[-1] == len(IMAGE)


def test_a_block_map_spares_what_is_empty(image: Path) -> None:
    """Only its blocks are written; between them the disk is as it was."""
    (image.parent / "x.bmap").write_bytes(block_map(IMAGE, SPANS))
    count, _, disk = _write(image, mapped=True)
    wanted = bytearray(b"old!" * (10 * MIB // 4))
    for first, last in SPANS:
        piece = IMAGE[first * 4096 : (last + 1) * 4096]
        wanted[first * 4096 : first * 4096 + len(piece)] = piece
    assert disk == bytes(wanted)
    assert count == sum(len(IMAGE[first * 4096 : (last + 1) * 4096]) for first, last in SPANS)


def test_an_image_that_is_not_the_mapped_one_leaves_no_table(image: Path) -> None:
    """A flipped byte in the last span: refused, and the disk would start no board."""
    (image.parent / "x.bmap").write_bytes(block_map(IMAGE, SPANS))
    image.write_bytes(IMAGE[:-1] + bytes([IMAGE[-1] ^ 1]))
    with pytest.raises(DataError, match="not those of its block map"):
        _write(image, mapped=True)
    assert (image.parent / "disk").read_bytes()[:4096] == bytes(4096)


@pytest.mark.parametrize("at", [0, 5 * MIB, len(IMAGE) - 1])
def test_a_card_that_lies_is_found(at: int, image: Path) -> None:
    """One bit is another after it was written: the first, one in the middle, the last."""
    path = image.parent / "disk"

    def wear(what: str, done: int, _: int) -> None:
        if what == "reading back" and done == 0:
            with path.open("r+b") as disk:
                disk.seek(at)
                disk.write(bytes([IMAGE[at] ^ 0x10]))

    with pytest.raises(CheckFailedError, match="reads back differently"):
        write(image, disk_of(path), spans_of(image, None), wear)


def test_a_disk_that_is_too_small_is_not_touched(image: Path) -> None:
    """It says by how much; with a block map only what is mapped must fit."""
    path = image.parent / "disk"
    path.write_bytes(b"old!" * (9 * MIB // 4))
    with pytest.raises(StoreError, match="700 too few"):
        _write(image)
    assert path.read_bytes() == b"old!" * (9 * MIB // 4)
    (image.parent / "x.bmap").write_bytes(block_map(IMAGE, SPANS[:2]))
    _write(image, mapped=True)


def test_a_run_that_is_cut_off_leaves_no_table(image: Path) -> None:
    """The piece with the partition table is wiped first and written last."""

    def cut(what: str, done: int, _: int) -> None:
        if what == "writing" and done > 5 * MIB:
            raise KeyboardInterrupt

    path = image.parent / "disk"
    with pytest.raises(KeyboardInterrupt):
        write(image, disk_of(path), spans_of(image, None), cut)
    assert path.read_bytes()[:4096] == bytes(4096)


def test_the_table_is_kept_from_the_disk_until_the_rest_is_on_it(image: Path) -> None:
    """The wipe, then all else, then the table: the disk is made to keep each before the next is written."""
    seen: list[str] = []

    def hear(frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and called is os.fsync:
            seen.append("sync")
        elif event == "c_call" and called is os.pwrite:
            seen.append("begin" if frame.f_locals["at"] == 0 else "rest")

    before = sys.getprofile()
    sys.setprofile(hear)
    try:
        _write(image)
    finally:
        sys.setprofile(before)
    assert seen == ["begin", "sync", "rest", "rest", "sync", "begin", "sync"]


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("losetup"), reason="needs root and losetup")
def test_a_real_block_device_is_written_and_not_while_it_is_in_use(image: Path) -> None:
    """A loop device: the kernel's own refusals, the dropped cache, and the bytes in the file behind it."""
    path = image.parent / "disk"
    try:
        device = Path(_run("losetup", "--find", "--show", str(path)))
    except subprocess.SubprocessError:
        pytest.skip("no loop device here")
    try:
        assert write(image, disk_of(device), spans_of(image, None), lambda *_: None) == len(IMAGE)
        disk = disk_of(device)
        holder = os.open(device, os.O_RDONLY | os.O_EXCL)
        with pytest.raises(NotReadyError, match="in use"):
            write(image, disk, spans_of(image, None), lambda *_: None)
        os.close(holder)
    finally:
        _run("losetup", "--detach", str(device))
    assert path.read_bytes()[: len(IMAGE)] == IMAGE


def test_an_image_is_not_written_onto_itself(image: Path) -> None:
    """Nor through a link."""
    (image.parent / "link").symlink_to(image)
    with pytest.raises(ConfigError, match="onto itself"):
        write(image, disk_of(image.parent / "link"), spans_of(image, None), lambda *_: None)
    assert image.read_bytes() == IMAGE


def test_what_cannot_be_read_is_named(image: Path) -> None:
    """No image, an empty one, no block map."""
    (image.parent / "empty").touch()
    for missing, mapped in ((image.parent / "none", None), (image, image.parent / "none")):
        with pytest.raises(ConfigError, match="none cannot be read"):
            spans_of(missing, mapped)
    with pytest.raises(DataError, match="empty"):
        spans_of(image.parent / "empty", None)
