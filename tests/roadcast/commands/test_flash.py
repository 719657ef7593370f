"""``roadcast flash``, into a tree and over SSH."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError, TransportError
from roadcast.commands.flash import app
from roadcast.site_files import read_plan
from tests.fakes import images
from tests.fakes.l4t import l4t_tree
from tests.fakes.sites import SITE, make_site
from tests.fakes.sshd import SKIP_REASON, Sshd


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of two devices with a certificate and wheels, and an empty tree."""
    return make_site(tmp_path)


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


@pytest.mark.parametrize("way", ["--rootfs", "--cloud-init", "--deb", "--ssh"])
def test_a_file_that_the_agent_is_told_of_and_nothing_brings_is_said(way: str, site: Path) -> None:
    """On every way, once for all devices; what `install.copy` brings, and what lies elsewhere, is no matter."""
    tree = {**SITE, "ssh": {"cam-1": {"host": "127.0.0.1", "port": 1}, "cam-2": {"host": "127.0.0.1", "port": 1}}}
    for device, uri in {"cam-1": "pack:///etc/roadcast/road.npz", "cam-2": "csi://0"}.items():
        tree["devices"] = {**tree["devices"], device: {"sources": [{"name": "road", "uri": uri}]}}
    site.write_text(yaml.safe_dump(tree))
    where = {"--rootfs": "rootfs", "--ssh": "all"}.get(way, "out")
    more = [way, where] if way == "--ssh" else ["--device", "cam-1", way, str(site.parent / where)]
    known = [*(["--known-hosts", str(site)] if way == "--ssh" else []), "--dry-run"]
    told = " ".join(CliRunner().invoke(app, ["--site", str(site), *more, *known]).stderr.split())
    whose = "cam-1, cam-2" if way == "--ssh" else "cam-1"
    assert f"/etc/roadcast/root.json: the agent of {whose} is told of it, and nothing brings it" in told
    assert "/etc/roadcast/road.npz: the agent of cam-1 is told" in told
    assert told.count("warning:") == 2


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
    (out / "roadcast-notes").write_text("another's")
    old = out / f"roadcast-{'0' * 32}"
    if way == "--cloud-init":
        old.write_text("a wheel of an earlier seed")
    again = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert [change["action"] for change in again] == ["keep"] * count + ["remove"] * (way == "--cloud-init")
    assert not old.exists()
    (out / "roadcast-notes").unlink()
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


def test_nvidia_s_tool_is_announced_with_what_would_stop_it(site: Path) -> None:
    """A dry run with --then-flash: the command, no board in recovery mode, and nothing written."""
    root = l4t_tree(site.parent / "l4t")
    command = ["--site", str(site), "--device", "cam-1", "--rootfs", str(root), "--dry-run"]
    told = CliRunner().invoke(app, [*command, "--then-flash", "jetson-orin-nano-devkit:nvme0n1p1"]).stdout
    assert "would run: ./tools/kernel_flash/l4t_initrd_flash.sh" in told
    assert "fail\trecovery" in told or "ok\trecovery" in told  # whatever is plugged into this machine
    assert not (root / "etc/roadcast").exists()
    assert not (site.parent / "l4t/called").exists()


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
        assert flash("cam-1") == (
            0,
            "1 unchanged\ndevice\thost\toutcome\twrites\terror\ncam-1\t127.0.0.1\tunchanged\t0\t-\n",
        )
        alone = CliRunner().invoke(app, ["--site", str(site), "--ssh", "cam-2", *identity]).exception
        assert isinstance(alone, TransportError)
