"""``roadcast flash``, into a tree and over SSH."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError, RoadcastError, TransportError
from roadcast.commands.flash import app
from roadcast.site_files import read_plan
from tests.fakes import images
from tests.fakes.l4t import l4t_tree
from tests.fakes.sshd import SKIP_REASON, Sshd

SITE: dict[str, Any] = {
    "agent": {
        "fleet": "city",
        "tier": "small",
        "task": "vehicle",
        "broker": {"host": "10.0.0.2", "ca_file": "/etc/roadcast/ca.pem"},
        "trusted_root": "/etc/roadcast/root.json",
        "sources": [{"name": "road", "uri": "rtsp://camera/stream"}],
    },
    "devices": {"cam-1": {}, "cam-2": {"sources": [{"name": "road", "uri": "csi://0"}]}},
    "install": {"copy": {"/etc/roadcast/ca.pem": "secrets/ca.pem"}, "wheels": "wheels"},
}

MBR = bytes(446) + struct.pack("<B3xB3xII", 0, 0x83, 1, 127) + bytes(48) + b"\x55\xaa"
"""One partition from the second sector to the 128th."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two devices with a certificate and wheels, and an empty tree."""
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/ca.pem").write_text("certificate")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/roadcast-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(SITE))
    return tmp_path / "site.yaml"


def _flash(site: Path, *more: str) -> list[dict[str, str]]:
    command = ["--site", str(site), "--rootfs", str(site.parent / "rootfs"), "--json", *more]
    changes: list[dict[str, str]] = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    return changes


def test_a_device_of_a_fleet_is_installed(site: Path) -> None:
    """Its own configuration, which the agent takes, the certificate and the wheel; a second run changes nothing."""
    first = _flash(site, "--device", "cam-2")
    root = site.parent / "rootfs"
    assert {change["action"] for change in first} == {"add"}
    text = (root / "etc/roadcast/device.yaml").read_text()
    config = load_config(text, DeviceConfig, where="device.yaml")
    assert (config.device, config.sources[0].uri, config.state_dir) == ("cam-2", "csi://0", "/var/lib/roadcast")
    assert (root / "etc/roadcast/ca.pem").read_text() == "certificate"
    (wheel,) = root.glob("opt/roadcast/wheels-*/roadcast-0.1.0-py3-none-any.whl")
    assert wheel.read_bytes() == b"wheel"
    assert {change["action"] for change in _flash(site, "--device", "cam-2")} == {"keep"}


def test_a_factory_model_is_installed_where_the_agent_looks_for_it(site: Path) -> None:
    """Every file of the folder that the site names, readable by all; an empty folder is refused."""
    text = site.read_text()
    site.write_text(text.replace("wheels: wheels", "wheels: wheels\n  factory: model"))
    with pytest.raises(ConfigError, match="roadcast release factory"):
        read_plan(site, "cam-1")
    (site.parent / "model" / "vehicle").mkdir(parents=True)
    (site.parent / "model" / "vehicle" / "current.json").write_bytes(b"pointer")
    planned = {file.path: file for file in read_plan(site, "cam-1").files}
    config = load_config(planned["/etc/roadcast/device.yaml"].content.decode(), DeviceConfig, where="device.yaml")
    found = planned[f"{config.factory}/vehicle/current.json"]
    assert (found.content, found.mode) == (b"pointer", 0o644)


def test_the_site_of_the_documentation_can_be_planned(tmp_path: Path) -> None:
    """The example in docs/operations.md is a site that `flash` takes."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    example = text.partition("# site.yaml;")[2].partition("```")[0].partition("\n")[2]
    (tmp_path / "site.yaml").write_text(example)
    (tmp_path / "ca.pem").write_text("certificate")
    (tmp_path / "root.json").write_text("{}")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/roadcast-0.1.0-py3-none-any.whl").touch()
    assert len(read_plan(tmp_path / "site.yaml", "cam-2").files) == 12


def test_a_network_that_a_way_does_not_set_is_said(site: Path) -> None:
    """A tree gets none and the warning names whose; another device's is no matter, and a seed carries it."""
    site.write_text(yaml.safe_dump({**SITE, "network": {"cam-1": {"version": 2}}}))

    def warned(*way: str, device: str = "cam-1") -> str:
        done = CliRunner().invoke(app, ["--site", str(site), "--device", device, *way], catch_exceptions=False)
        return done.stderr

    tree, folder = ("--rootfs", str(site.parent / "rootfs"), "--dry-run"), str(site.parent / "out")
    assert "network of cam-1: not set" in " ".join(warned(*tree).split())
    assert "network of cam-1: not set" in " ".join(warned("--deb", folder).split())
    assert "network" not in warned(*tree, device="cam-2")
    assert "network" not in warned("--cloud-init", folder)


def test_a_dry_run_shows_the_difference(site: Path) -> None:
    """Units line by line, secrets not; nothing is written."""
    command = ["--site", str(site), "--rootfs", str(site.parent / "rootfs"), "--device", "cam-1", "--dry-run"]
    told = CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert "+WatchdogSec=300" in told
    assert "add\t/etc/roadcast/device.yaml" in told
    assert "10.0.0.2" not in told
    assert not (site.parent / "rootfs/etc/roadcast").exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tier: small", "tier: giant", "tier"),
        ("secrets/ca.pem", "secrets/none.pem", "cannot be read"),
        ("wheels: wheels", "wheels: none", "no folder"),
        ("install:", "instal:", "did you mean 'install'"),
    ],
)
def test_a_wrong_site_is_refused_before_anything_is_written(old: str, new: str, says: str, site: Path) -> None:
    """The agent's own rules, a missing file, missing wheels, an unknown key."""
    site.write_text(site.read_text().replace(old, new))
    command = ["--site", str(site), "--rootfs", str(site.parent / "rootfs"), "--device", "cam-1"]
    failed = CliRunner().invoke(app, command).exception
    assert isinstance(failed, ConfigError)
    assert says in str(failed)
    assert list((site.parent / "rootfs").rglob("*")) == [site.parent / "rootfs/etc"]


@pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
def test_an_image_is_flashed(site: Path) -> None:
    """Its root partition gets the device's configuration, of two the named one; a second run writes nothing."""
    image = images.disk_image(site.parent / "ab.img", [(images.ROOT, 8), (images.ROOT, 8)])
    command = ["--site", str(site), "--image", str(image), "--device", "cam-1"]
    failed = CliRunner().invoke(app, command).exception
    assert isinstance(failed, ConfigError)
    assert "--partition N" in str(failed)
    told = CliRunner().invoke(app, [*command, "--partition", "2"], catch_exceptions=False).stdout
    assert "add\t/etc/roadcast/device.yaml" in told
    inside = images.Inside(image, images.layout(image)[1]["start"] * 512)
    assert b"device: cam-1" in inside.read("/etc/roadcast/device.yaml")
    told = CliRunner().invoke(app, [*command, "--partition", "2", "--json"], catch_exceptions=False).stdout
    assert {change["action"] for change in json.loads(told)} == {"keep"}


@pytest.mark.parametrize(("way", "count"), [("--cloud-init", 3), ("--deb", 1)])
def test_a_device_is_written_out_for_others_to_install(way: str, count: int, site: Path) -> None:
    """As a seed and as a package: readable by nobody else, and a second run writes nothing."""
    out = site.parent / "out"
    command = ["--site", str(site), "--device", "cam-1", way, str(out), "--json"]
    assert len(json.loads(CliRunner().invoke(app, [*command, "--dry-run"], catch_exceptions=False).stdout)) == count
    assert not out.exists()
    made = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert {change["path"] for change in made} == {str(path) for path in out.iterdir()}
    assert {path.stat().st_mode & 0o077 for path in out.iterdir()} == {0}
    before = [path.stat().st_mtime_ns for path in out.iterdir()]
    again = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert {change["action"] for change in again} == {"keep"}
    assert [path.stat().st_mtime_ns for path in out.iterdir()] == before


@pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
def test_a_seed_goes_into_an_image(site: Path) -> None:
    """Into the boot partition that is named; the root filesystem is left to cloud-init."""
    image = images.disk_image(site.parent / "pi.img", [(images.BOOT, 4), (images.ROOT, 8)])
    command = ["--site", str(site), "--device", "cam-1", "--image", str(image), "--seed", "--partition", "1"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    at = f"{image}@@{images.layout(image)[0]['start'] * 512}"
    assert images.tool("mtype", "-i", at, "::user-data").startswith(b"#cloud-config\n")
    assert b"local-hostname: cam-1" in images.tool("mtype", "-i", at, "::meta-data")


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


def test_nvidia_s_tool_is_announced_with_what_would_stop_it(site: Path) -> None:
    """A dry run with --then-flash: the command, no board in recovery mode, and nothing written."""
    root = l4t_tree(site.parent / "l4t")
    command = ["--site", str(site), "--device", "cam-1", "--rootfs", str(root), "--dry-run"]
    told = CliRunner().invoke(app, [*command, "--then-flash", "jetson-orin-nano-devkit:nvme0n1p1"]).stdout
    assert "would run: ./tools/kernel_flash/l4t_initrd_flash.sh" in told
    assert "fail\trecovery" in told or "ok\trecovery" in told  # whatever is plugged into this machine
    assert not (root / "etc/roadcast").exists()
    assert not (site.parent / "l4t/called").exists()


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


@pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)
def test_an_inventory_is_flashed_over_ssh(site: Path) -> None:
    """From site.yaml alone; one dead target of two is exit code 5, and the whole result is on stdout as JSON."""
    root = site.parent / "rootfs"
    for folder in ("usr/bin", "usr/lib/systemd"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/python3").touch()
    with Sshd(site.parent / "sshd") as sshd:
        here = {"host": "127.0.0.1", "port": sshd.port, "fingerprint": sshd.fingerprint}
        site.write_text(yaml.safe_dump({**SITE, "ssh": {"cam-1": here, "cam-2": {**here, "port": 1}}}))
        identity = ["--identity", str(sshd.login.identity), "--prefix", str(root)]

        def flash(targets: str, *more: str) -> tuple[int, str]:
            command = ["--site", str(site), "--ssh", targets, *identity, *more]
            done = CliRunner().invoke(app, command)
            assert done.exception is None or isinstance(done.exception, SystemExit)
            return done.exit_code, done.stdout

        code, text = flash("cam-1", "--dry-run")
        assert code == 0
        assert "add\t/etc/roadcast/device.yaml" in text
        assert "cam-1\t127.0.0.1\tplanned\t12\t-" in text
        assert not (root / "etc/roadcast").exists()
        code, text = flash("all", "--json")
        one, two = json.loads(text)
        assert (code, one["outcome"], two["outcome"]) == (5, "written", "failed")
        assert "no SSH connection" in two["error"]
        assert flash("cam-1") == (0, "device\thost\toutcome\twrites\terror\ncam-1\t127.0.0.1\tunchanged\t0\t-\n")
        alone = CliRunner().invoke(app, ["--site", str(site), "--ssh", "cam-2", *identity]).exception
        assert isinstance(alone, TransportError)
