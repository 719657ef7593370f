"""The ways of `roadcast flash`: onto cards, only what may go there, and no option that is passed over."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_protocol.errors import ConfigError, RoadcastError
from roadcast.commands.flash import app
from tests.fakes import images
from tests.fakes.l4t import ELF, X86_64
from tests.fakes.sites import make_site

MBR = bytes(446) + struct.pack("<B3xB3xII", 0, 0x83, 1, 127) + bytes(48) + b"\x55\xaa"
"""One partition from the second sector to the 128th."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two devices with a certificate and wheels, and an empty tree."""
    return make_site(tmp_path)


def test_a_card_is_written_after_a_question(tmp_path: Path) -> None:
    """A no writes nothing, a yes or --yes does; the block map beside the image is used, and the result is JSON."""
    content = MBR + bytes(range(256)) * 254
    (tmp_path / "x.img").write_bytes(content)
    (tmp_path / "disk").write_bytes(bytes(70_000))
    command = ["--image", str(tmp_path / "x.img"), "--disk", str(tmp_path / "disk")]
    refused = CliRunner().invoke(app, command, input="n\n")
    assert isinstance(refused.exception, ConfigError)
    assert "over everything on" in refused.output
    assert "would be written over" in CliRunner().invoke(app, [*command, "--yes", "--dry-run"]).stdout
    assert (tmp_path / "disk").read_bytes() == bytes(70_000)
    assert "read back" in CliRunner().invoke(app, command, input="y\n").output
    assert (tmp_path / "disk").read_bytes() == content + bytes(70_000 - len(content))
    (tmp_path / "x.img.bmap").write_bytes(images.block_map(content, [(0, 3)]))
    told = json.loads(CliRunner().invoke(app, [*command, "--yes", "--json"]).stdout)
    assert told == {
        "disk": str(tmp_path / "disk"), "image_bytes": len(content), "bytes": 16384, "block_map": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# Read me\n" * 999, "neither a partition table nor a filesystem"),
        (b"\xfd7zXZ\0" + bytes(9000), "this is xz, not an image"),
        (MBR + bytes(9000), "the image is cut off: partition 1 ends at byte 65536"),
        (MBR + bytes(90_000), "20512 too few"),
        (None, "is no file"),
    ],
)
@pytest.mark.parametrize("more", ["--yes", "--dry-run"])
def test_what_starts_no_board_goes_onto_no_card(content: bytes | None, says: str, more: str, tmp_path: Path) -> None:
    """A text, a packed image, half of one, one that is too large, a FIFO: refused, and the card is as it was."""
    if content is None:
        os.mkfifo(tmp_path / "x.img")
    else:
        (tmp_path / "x.img").write_bytes(content)
    (tmp_path / "disk").write_bytes(b"old!" * 17_500)
    done = CliRunner().invoke(app, ["--image", str(tmp_path / "x.img"), "--disk", str(tmp_path / "disk"), more])
    assert isinstance(done.exception, RoadcastError)
    assert says in str(done.exception)
    assert (tmp_path / "disk").read_bytes() == b"old!" * 17_500


def test_an_image_that_is_not_there_or_cannot_be_copied_is_named(site: Path) -> None:
    """In a folder that is missing, and in one where not even root may write."""
    command = ["--site", str(site), "--device", "cam-1", "--disk", str(site.parent / "disk"), "--image"]
    (site.parent / "x.img").write_bytes(MBR + bytes(127 * 512))
    with (site.parent / "x.img").open("rb") as file:
        for image, says in {
            "/nonexistent/x.img": "cannot be read",
            f"/proc/self/fd/{file.fileno()}": "no copy",
        }.items():
            failed = CliRunner().invoke(app, [*command, image]).exception
            assert isinstance(failed, RoadcastError)
            assert says in str(failed)


@pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
def test_a_filesystem_without_a_table_goes_onto_a_card_with_a_warning(tmp_path: Path) -> None:
    """Some boards start from one; most do not."""
    images.make_ext4(tmp_path / "x.img", 0, 4)
    (tmp_path / "disk").write_bytes(bytes(4 * images.MIB))
    command = ["--image", str(tmp_path / "x.img"), "--disk", str(tmp_path / "disk"), "--yes"]
    assert "no partition table" in " ".join(CliRunner().invoke(app, command).stderr.split())
    assert (tmp_path / "disk").read_bytes() == (tmp_path / "x.img").read_bytes()


@pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
def test_a_device_is_written_onto_a_card_in_one_go(site: Path) -> None:
    """The image stays as it is, the card holds the device, and nothing is left beside them."""
    image = images.disk_image(site.parent / "x.img", [(images.ROOT, 8)])
    before, beside = image.read_bytes(), sorted(site.parent.iterdir())
    (site.parent / "disk").write_bytes(bytes(len(before)))
    command = ["--site", str(site), "--device", "cam-2", "--image", str(image), "--disk", str(site.parent / "disk")]
    assert CliRunner().invoke(app, [*command, "--yes"], catch_exceptions=False).exit_code == 0
    assert image.read_bytes() == before
    assert sorted(site.parent.iterdir()) == sorted([*beside, site.parent / "disk"])
    inside = images.Inside(site.parent / "disk", images.layout(image)[0]["start"] * 512)
    assert b"device: cam-2" in inside.read("/etc/roadcast/device.yaml")


def test_a_disk_is_no_device_and_wheels_are_those_that_are_listed(site: Path) -> None:
    """Before anything is written."""
    (site.parent / "wheels/requirements.txt").write_text("roadcast==0.1.0 --hash=sha256:00\n")
    for device, says in {"/dev/sdb": "--disk /dev/sdX", "cam-1": "lists other wheels"}.items():
        command = ["--site", str(site), "--device", device, "--image", str(site.parent / "x.img")]
        failed = CliRunner().invoke(app, command).exception
        assert isinstance(failed, ConfigError)
        assert says in str(failed)


@pytest.mark.parametrize(
    ("way", "lost"),
    [
        ("--image x --disk y", "--device a --out b --partition 1 --seed --then-flash c --prefix /mnt"),
        ("--site s --image x --disk y", "--out b --bmap c --then-flash d --at-once 3"),
        ("--site s --image x", "--bmap b --yes --then-flash c"),
        ("--site s --rootfs x", "--seed --out b --partition 1 --disk c --yes --identity d --prefix /"),
        ("--site s --rootfs x --then-flash b", "--out b --bmap c --disk d"),
        ("--site s --cloud-init x", "--bmap b --partition 1 --out c --prefix /mnt --yes --disk d --ask-password"),
        ("--site s --deb x", "--seed --out b --known-hosts c"),
        ("--site s --ssh x", "--seed --out b --partition 1 --yes --disk c --bmap d --then-flash e"),
    ],
)
def test_no_option_is_passed_over(way: str, lost: str) -> None:
    """Each that a way does not go by is named in one line, alone and together, before any file is looked for."""
    for options in [*lost.replace(" --", "|--").split("|"), lost]:
        failed = CliRunner().invoke(app, [*way.split(), *options.split()]).exception
        assert isinstance(failed, ConfigError)
        named, _, says = str(failed).partition(": passed over by flash with ")
        assert sorted(named.split(", ")) == sorted(word for word in options.split() if word.startswith("--"))
        assert says.startswith(f"--{way.rpartition('--site s')[2].split()[0].removeprefix('--')}")


def test_options_before_wheels_are_not_passed_over() -> None:
    """They are those of the command that is not run."""
    failed = CliRunner().invoke(app, ["--dry-run", "wheels", "--board", "jetson-nano", "--out", "x"]).exception
    assert isinstance(failed, ConfigError)
    assert str(failed) == "--dry-run: not of flash wheels; leave that out"


def test_a_tree_or_targets_are_named(site: Path) -> None:
    """Neither and both are errors of the command line's configuration."""
    for more in ([], ["--rootfs", str(site.parent), "--ssh", "all"], ["--disk", "x"]):
        failed = CliRunner().invoke(app, ["--site", str(site), *more]).exception
        assert isinstance(failed, ConfigError)
        assert "--rootfs DIR" in str(failed)


@pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
def test_every_way_into_files_tells_of_another_processor(site: Path) -> None:
    """A tree, an image, and the boot partition of an image whose root can be read; what is written is not less."""
    image = images.disk_image(site.parent / "pi.img", [(images.BOOT, 4), (images.ROOT, 8)])
    (site.parent / "bash").write_bytes(ELF + X86_64)
    (site.parent / "rootfs/usr/bin").mkdir(parents=True)
    (site.parent / "rootfs/usr/bin/bash").write_bytes(ELF + X86_64)
    at = f"{image}?offset={images.layout(image)[1]['start'] * 512}"
    (site.parent / "orders").write_text(f"cd /usr/bin\nwrite {site.parent / 'bash'} bash\n")
    images.tool("debugfs", "-w", "-f", str(site.parent / "orders"), at)
    for way in (
        ["--rootfs", str(site.parent / "rootfs")],
        ["--image", str(image)],
        ["--image", str(image), "--seed", "--partition", "1"],
    ):
        done = CliRunner().invoke(app, ["--site", str(site), "--device", "cam-1", *way], catch_exceptions=False)
        assert done.exit_code == 0
        assert "processor: the system is for x86_64, the site for aarch64" in " ".join(done.stderr.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_a_tree_whose_owners_are_lost_is_told_of(site: Path) -> None:
    """What is written is root's, but whoever owns the folders could put something else there."""
    command = ["--site", str(site), "--device", "cam-1", "--rootfs", str(site.parent / "rootfs"), "--dry-run"]
    assert "not root's" not in CliRunner().invoke(app, command).stderr
    os.chown(site.parent / "rootfs/etc", 1000, 1000)
    assert "folders are not root's" in " ".join(CliRunner().invoke(app, command).stderr.split())
