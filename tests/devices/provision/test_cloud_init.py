"""A seed for cloud-init: what it says, and what its script does at the first boot, with stand-ins for tools."""

from __future__ import annotations

import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml

from devices.provision.cloud_init import seed
from devices.provision.plan import Plan, PlannedFile, PlannedLink
from edge_protocol.errors import ConfigError
from tests.fakes.target import tools_path

UNIT = PlannedFile("/etc/systemd/system/x.service", b"[Service]\n")
SECRET = PlannedFile("/etc/roadcast/key.pem", bytes(range(256)), 0o640)


def _user_data(files: dict[str, bytes]) -> dict[str, Any]:
    assert files["user-data"].startswith(b"#cloud-config\n")
    found: dict[str, Any] = yaml.safe_load(files["user-data"])
    return found


def test_small_files_are_in_user_data() -> None:
    """With bytes, mode and owner, as write_files takes them; host keys are kept, or pinned ones would not fit."""
    data = _user_data(seed(Plan((UNIT, SECRET), ()), "cam-1", None))
    assert [
        (one["path"], b64decode(one["content"]), one["permissions"], one["owner"]) for one in data["write_files"]
    ] == [
        (UNIT.path, UNIT.content, "0644", "root:root"),
        (SECRET.path, SECRET.content, "0640", "root:root"),
    ]
    assert {one["encoding"] for one in data["write_files"]} == {"b64"}
    assert data["ssh_deletekeys"] is False


def test_another_plan_is_another_instance() -> None:
    """cloud-init runs again when a file, a link or the network is another; the same plan makes the same seed."""
    one, again = (seed(Plan((UNIT,), ()), "Cam_1", None) for _ in range(2))
    link = PlannedLink("/etc/wants/x.service", UNIT.path)
    others = [seed(Plan((SECRET,), ()), "Cam_1", None), seed(Plan((UNIT,), (link,)), "Cam_1", None)]
    others.append(seed(Plan((UNIT,), ()), "Cam_1", {"version": 2}))
    assert one == again
    identities = [yaml.safe_load(files["meta-data"]) for files in (one, *others)]
    assert len({identity["instance-id"] for identity in identities}) == 4
    assert {identity["local-hostname"] for identity in identities} == {"cam-1"}


def test_the_network_is_the_site_s() -> None:
    """Or DHCP on whatever has a cable."""
    wanted = {"version": 2, "ethernets": {"eth0": {"addresses": ["10.0.0.5/24"]}}}
    assert yaml.safe_load(seed(Plan((), ()), "a", wanted)["network-config"]) == wanted
    default = yaml.safe_load(seed(Plan((), ()), "a", None)["network-config"])
    assert default["ethernets"]["wired"]["dhcp4"] is True


def _boot(
    tmp_path: Path, *, wheel: bytes | None, place: str = "seed"
) -> tuple[subprocess.CompletedProcess[str], Path, str]:
    """Run the script of a seed with a wheel and a link, its folders below a temporary one."""
    root = tmp_path / "root"
    large = PlannedFile(f"{root}/opt/it's a wheel.whl", b"w" * 70_000)
    link = PlannedLink(f"{root}/etc/wants/x.service", "/etc/x.service")
    files = seed(Plan((UNIT, large), (link,)), "cam-1", None)
    (name,) = set(files) - {"user-data", "meta-data", "network-config"}
    for folder in (tmp_path / place, root / "etc/systemd/system"):
        folder.mkdir(parents=True)
    (root / "etc/systemd/system/roadcast-power.service").touch()
    if wheel is not None:
        (tmp_path / place / name).write_bytes(wheel)
    ((shell, option, script),) = _user_data(files)["runcmd"]
    script = script.replace("/var/lib/cloud/seed/nocloud /boot/firmware /boot", str(tmp_path / "seed"))
    script = script.replace("/run/roadcast-seed", str(tmp_path / "mounted"))
    log = tmp_path / "log"
    told = {tool: f'echo "{tool} $*" >>{log}' for tool in ("systemctl", "systemd-sysusers", "systemd-tmpfiles")}
    card = f'[ "$2" = cidata ] && echo /dev/card && [ -d {tmp_path / "card"} ]'
    mount = f"rmdir {tmp_path / 'mounted'} && ln -s {tmp_path / 'card'} {tmp_path / 'mounted'}"
    path = tools_path(tmp_path / "bin", **told, blkid=card, mount=mount, umount="true")
    for tool in ("install", "mkdir", "echo"):
        if not (tmp_path / "bin" / tool).exists():
            (tmp_path / "bin" / tool).symlink_to(Path("/usr/bin") / tool)
    done = subprocess.run(
        [shell, option, script],
        env={"PATH": path, "DPKG_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done, root, log.read_text() if log.exists() else ""


@pytest.mark.parametrize("place", ["seed", "card"])
def test_a_wheel_finds_its_place_at_the_first_boot(place: str, tmp_path: Path) -> None:
    """From a folder of the system, or from a card with the label; its hash is checked, then systemd is told."""
    done, root, log = _boot(tmp_path, wheel=b"w" * 70_000, place=place)
    assert done.returncode == 0, done.stderr
    assert (root / "opt/it's a wheel.whl").read_bytes() == b"w" * 70_000
    assert not (root / "etc/systemd/system/roadcast-power.service").exists(), "an earlier seed left it"
    assert (root / "etc/wants/x.service").readlink() == Path("/etc/x.service")
    assert "systemd-sysusers /etc/sysusers.d/roadcast.conf" in log


@pytest.mark.parametrize(("wheel", "says"), [(b"v" * 70_000, "checksum"), (None, "not found")])
def test_a_wheel_that_is_not_the_planned_one_stops_it(wheel: bytes | None, says: str, tmp_path: Path) -> None:
    """Rotten on the card, or not there: systemd is told nothing, and the log of the boot says why."""
    done, _, log = _boot(tmp_path, wheel=wheel)
    assert done.returncode != 0
    assert says in done.stderr
    assert log == ""


def test_a_path_that_leaves_the_tree_is_refused() -> None:
    """As everywhere."""
    with pytest.raises(ConfigError):
        seed(Plan((PlannedFile("/etc/../x", b""),), ()), "a", None)
