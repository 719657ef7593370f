"""A seed in the boot partition of an image, read back with mtools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from devices.provision.boot_partition import write_seed
from devices.provision.plan import INSTALLED
from devices.provision.programs import Programs
from edge_protocol.errors import ConfigError, NotReadyError, StoreError
from tests.fakes import images
from tests.fakes.images import BOOT, MIB, ROOT, disk_image, layout, tool

pytestmark = pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
FILES = {"user-data": b"#cloud-config\r\n\x1a\xff", "meta-data": b"a: 1\n", f"roadcast-{'a' * 32}": os.urandom(200_000)}


def _relabel(image: Path, number: int, label: str) -> str:
    at = f"{image}@@{layout(image)[number - 1]['start'] * 512}"
    tool("mlabel", "-i", at, f"::{label}")
    return at


def test_a_seed_is_written_beside_what_is_there(tmp_path: Path) -> None:
    """Every byte, and the firmware's own file as it was; a second run writes nothing; the root is not touched."""
    image = disk_image(tmp_path / "pi.img", [(BOOT, 4), (ROOT, 8)], label="dos")
    at = _relabel(image, 1, "system-boot")
    root = image.read_bytes()[layout(image)[1]["start"] * 512 :]
    assert {change.action for change in write_seed(FILES, image, dry_run=True)} == {"add"}
    assert {change.action for change in write_seed(FILES, image)} == {"add"}
    for name, content in FILES.items():
        assert tool("mtype", "-i", at, f"::{name}") == content
    assert tool("mtype", "-i", at, "::config.txt") == b"arm_64bit=1\n"
    assert image.read_bytes()[layout(image)[1]["start"] * 512 :] == root
    before = image.stat()
    assert {change.action for change in write_seed(FILES, image)} == {"keep"}
    assert (image.stat().st_ino, image.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    changed = write_seed({**FILES, "meta-data": b"b: 2\n"}, image, out=tmp_path / "out.img")
    assert [change.action for change in changed] == ["keep", "change", "keep"]
    assert tool("mtype", "-i", at.replace("pi.img", "out.img"), "::meta-data") == b"b: 2\n"


def test_an_earlier_seed_makes_room_for_the_next(tmp_path: Path) -> None:
    """Its wheels go before others come: a small partition takes one set after the other, without a warning."""
    image = disk_image(tmp_path / "pi.img", [(BOOT, 2), (ROOT, 8)])
    at = f"{image}@@{layout(image)[0]['start'] * 512}"
    heard: list[str] = []
    for letter in "abcdef":
        wheel = f"roadcast-{letter * 32}"
        seed = {"user-data": f"{INSTALLED} {letter}".encode(), wheel: os.urandom(MIB)}
        changes = write_seed(seed, image, partition=1, warn=heard.append)
        assert [change.action for change in changes][2:] == ["remove"] * (letter > "a")
        assert tool("mtype", "-i", at, f"::{wheel}") == seed[wheel]
    told = tool("mdir", "-b", "-i", at, "::").decode().split()
    assert sorted(told) == ["::/config.txt", f"::/roadcast-{'f' * 32}", "::/user-data"]
    assert heard == []


def test_somebody_else_s_seed_is_not_replaced_unsaid(tmp_path: Path) -> None:
    """What the maker of the image, or its owner, had put there is named; a dry run says so too."""
    image = disk_image(tmp_path / "pi.img", [(BOOT, 4), (ROOT, 8)])
    at = f"{image}@@{layout(image)[0]['start'] * 512}"
    for name in ("user-data", "network-config"):
        tool("mcopy", "-i", at, "-", f"::{name}", given=b"#cloud-config\n")
    heard: list[str] = []
    seed = {"user-data": INSTALLED.encode(), "meta-data": b"a: 1\n", "network-config": b"version: 2\n"}
    write_seed(seed, image, partition=1, dry_run=True, warn=heard.append)
    write_seed(seed, image, partition=1, warn=heard.append)
    assert [text.partition(":")[0] for text in heard] == ["the boot partition's user-data, network-config"] * 2


def test_the_partition_must_be_known_or_named(tmp_path: Path) -> None:
    """A FAT that is called something else is taken only when its number is given; an ext4 never."""
    image = disk_image(tmp_path / "pi.img", [(BOOT, 4), (ROOT, 8)])
    before = image.read_bytes()
    for number, says in {None: "0 FAT partitions.*1: FAT 'BOOT'", 2: "no FAT", 7: "no FAT"}.items():
        with pytest.raises(ConfigError, match=says):
            write_seed(FILES, image, partition=number)
    assert image.read_bytes() == before
    write_seed(FILES, image, partition=1)


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """A full boot partition: the image stays as it was, and nothing is left beside it."""
    image = disk_image(tmp_path / "pi.img", [(BOOT, 2), (ROOT, 8)])
    before = image.read_bytes()
    with pytest.raises(StoreError, match="mcopy"):
        write_seed({"wheel": bytes(4 * MIB)}, image, partition=1)
    assert image.read_bytes() == before
    assert list(tmp_path.iterdir()) == [image]


def test_without_mtools_it_says_so(tmp_path: Path) -> None:
    """The package's name."""
    with pytest.raises(NotReadyError, match="install mtools"):
        write_seed(FILES, tmp_path / "x.img", programs=Programs(str(tmp_path)))
