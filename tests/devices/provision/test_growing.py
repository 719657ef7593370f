"""A filesystem that grows: into its partition, and with the image where its partition is the last one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.provision.growing import grow
from devices.provision.image import carry_out
from devices.provision.partitions import read_table
from devices.provision.plan import Plan, PlannedFile
from edge_protocol.errors import StoreError
from tests.fakes import images
from tests.fakes.images import BOOT, MIB, OTHER, ROOT, Inside, disk_image, layout, make_ext4, partition_of, tool

pytestmark = pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)


def test_a_filesystem_grows_into_its_partition(tmp_path: Path) -> None:
    """What does not fit makes it grow, up to its partition's end; what comes after stays, and the image is as long."""
    image = disk_image(tmp_path / "card.img", [(BOOT, 2), (ROOT, 40), (OTHER, 4)])
    make_ext4(image, layout(image)[1]["start"] * 512, 8)
    wheel = PlannedFile("/opt/big.whl", os.urandom(12 * MIB))
    others, size = [partition_of(image, number) for number in (1, 3)], image.stat().st_size
    carry_out(Plan((wheel,), ()), image)
    inside = Inside(image, layout(image)[1]["start"] * 512)
    inside.check()
    assert inside.read(wheel.path) == wheel.content
    assert ([partition_of(image, number) for number in (1, 3)], image.stat().st_size) == (others, size)
    assert inside.read("/etc/hostname") == b"board\n"


def test_what_lay_behind_a_filesystem_does_not_spoil_it(tmp_path: Path) -> None:
    """Without checksums mkfs leaves tables of inodes for later, and what grows over old bytes must not keep them."""
    image = disk_image(tmp_path / "card.img", [(BOOT, 2), (ROOT, 190), (OTHER, 2)])
    start = layout(image)[1]["start"] * 512
    with image.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * (190 * MIB))
    make_ext4(image, start, 40, more=("-O", "^metadata_csum"))
    others = [partition_of(image, number) for number in (1, 3)]
    wheel = PlannedFile("/opt/big.whl", os.urandom(60 * MIB))
    carry_out(Plan((wheel,), ()), image)
    Inside(image, start).check()
    assert Inside(image, start).read(wheel.path) == wheel.content
    assert [partition_of(image, number) for number in (1, 3)] == others


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_the_last_partition_grows_with_the_image(label: str, tmp_path: Path) -> None:
    """What its partition cannot hold makes image, table and filesystem larger; sfdisk finds the table right."""
    image = disk_image(tmp_path / "card.img", [(BOOT, 4), (ROOT, 8)], label=label)
    wheel = PlannedFile("/opt/big.whl", os.urandom(20 * MIB))
    before, boot = layout(image), partition_of(image, 1)
    carry_out(Plan((wheel,), ()), image)
    after = layout(image)
    assert after[0] == before[0]
    assert (after[1]["start"], after[1]["type"]) == (before[1]["start"], before[1]["type"])
    assert after[1]["size"] > before[1]["size"] + 12 * MIB // 512
    told = tool("sfdisk", "--verify", str(image)).decode()
    assert "No errors detected" in told, told
    inside = Inside(image, layout(image)[1]["start"] * 512)
    inside.check()
    assert (inside.read(wheel.path), partition_of(image, 1)) == (wheel.content, boot)
    assert {change.action for change in carry_out(Plan((wheel,), ()), image)} == {"keep"}


def test_a_bare_filesystem_grows(tmp_path: Path) -> None:
    """There is no table to be changed."""
    make_ext4(tmp_path / "root.ext4", 0, 8)
    wheel = PlannedFile("/opt/big.whl", os.urandom(20 * MIB))
    carry_out(Plan((wheel,), ()), tmp_path / "root.ext4")
    assert Inside(tmp_path / "root.ext4").read(wheel.path) == wheel.content
    Inside(tmp_path / "root.ext4").check()


def test_a_partition_that_another_follows_does_not_grow(tmp_path: Path) -> None:
    """It says which one is in the way; the image stays."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 8), (BOOT, 2)])
    before = image.read_bytes()
    with pytest.raises(StoreError, match="partition 1 is full, and partition 2 follows"):
        carry_out(Plan((PlannedFile("/opt/big.whl", os.urandom(20 * MIB)),), ()), image)
    assert image.read_bytes() == before
    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.parametrize("extra", [1, MIB, 3 * MIB + 1, 64 * MIB])
def test_the_second_copy_of_the_table_moves_to_the_end(extra: int, tmp_path: Path) -> None:
    """Of a GPT both are whole, and the image ends behind the second."""
    image = disk_image(tmp_path / "card.img", [(BOOT, 2), (OTHER, 2)])
    content = bytearray(image.read_bytes())
    table = read_table(lambda at, count: bytes(content[at : at + count]), len(content))
    growth = grow(lambda at, count: bytes(content[at : at + count]), len(content), table.partitions[1], extra)
    content += bytes(growth.size - len(content))
    for at, patch in growth.patches.items():
        content[at : at + len(patch)] = patch
    assert content[-512:-504] == b"EFI PART"
    image.write_bytes(content)
    assert "No errors detected" in tool("sfdisk", "--verify", str(image)).decode()
    assert layout(image)[1]["size"] * 512 == growth.partition.size >= 2 * MIB + extra
