"""The install plan: what it holds, what it refuses, and what systemd says to its units."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from devices.provision.plan import Plan, check_budget, make_plan
from devices.provision.rootfs import carry_out
from devices.provision.site import CameraMatch, InstallConfig, Site
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError
from edge_protocol.identity.token import EnrolmentToken

TREE: dict[str, Any] = {"fleet": "city", "device": "cam-1", "state_dir": "/var/lib/roadcast"}
WHEELS = {
    "roadcast-0.1.0-py3-none-any.whl": b"ours",
    "numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": b"theirs",
}
AGENT = "/etc/systemd/system/roadcast-agent.service"
UNITS = "/etc/systemd/system"
SETUP = "/etc/systemd/system/roadcast-setup.service"


def _plan(wheels: dict[str, bytes] | None = None, tree: dict[str, Any] | None = None, **changes: Any) -> Plan:
    install = InstallConfig(**{"wheels": "wheels", **changes})
    return make_plan(tree or TREE, install, {}, WHEELS if wheels is None else wheels)


def _text(plan: Plan, path: str) -> str:
    return next(file.content.decode() for file in plan.files if file.path == path)


def test_a_plan_holds_all_that_a_device_needs() -> None:
    """Configuration, services, user, owners, journal, wheels, and the link that starts it at boot."""
    plan = _plan()
    folder = next(part for part in _text(plan, SETUP).split() if part.startswith("/opt/roadcast/wheels-"))
    assert {file.path for file in plan.files} == {
        "/etc/roadcast/device.yaml",
        AGENT,
        SETUP,
        "/etc/sysusers.d/roadcast.conf",
        "/etc/tmpfiles.d/roadcast.conf",
        "/etc/systemd/journald.conf.d/roadcast.conf",
        "/opt/roadcast/set-up.sh",
        "/usr/lib/roadcast/installed",
        f"{folder}/requirements.txt",
        *(f"{folder}/{name}" for name in WHEELS),
    }
    (link,) = plan.links
    assert (link.path, link.target) == (AGENT.replace("system/", "system/multi-user.target.wants/"), AGENT)
    assert yaml.safe_load(_text(plan, "/etc/roadcast/device.yaml")) == TREE
    assert {file.mode for file in plan.files if file.path.startswith("/etc/roadcast/")} == {0o640}


def test_the_same_site_makes_the_same_plan() -> None:
    """Whatever the order of the wheels; another wheel is another set-up, so that the board installs it."""
    other = {**WHEELS, "roadcast-0.1.0-py3-none-any.whl": b"newer"}
    assert _plan() == _plan(dict(reversed(WHEELS.items())))
    assert _text(_plan(), SETUP) != _text(_plan(other), SETUP)


def test_the_agent_is_watched_limited_and_not_tried_again_in_vain() -> None:
    """Watchdog, memory, rights, and no restart after a configuration error."""
    lines = _text(_plan(memory_mb=777, watchdog_s=60), AGENT).splitlines()
    for wanted in ("Type=notify", "WatchdogSec=60", "MemoryMax=777M", "RestartPreventExitStatus=2 78", "User=roadcast"):
        assert wanted in lines
    assert "NoNewPrivileges=yes" in lines
    assert "ReadWritePaths=/mnt/nvme/state" in _text(_plan(tree={**TREE, "state_dir": "/mnt/nvme/state"}), AGENT)


def test_a_device_with_a_certificate_renews_it() -> None:
    """A timer starts the renewal as the agent's user, which may write where the state is; without one there is none."""
    identity = {"ca_file": "/var/lib/roadcast/id/ca.pem", "cert_file": "/var/lib/roadcast/id/own.pem"}
    plan = _plan(tree={**TREE, "broker": identity})
    service = _text(plan, f"{UNITS}/roadcast-renew.service")
    assert "client renew --config /etc/roadcast/device.yaml" in service
    assert "ReadWritePaths=/var/lib/roadcast\n" in service
    assert "User=roadcast" in service
    assert f"{UNITS}/timers.target.wants/roadcast-renew.timer" in {link.path for link in plan.links}
    assert "Persistent=true" in _text(plan, f"{UNITS}/roadcast-renew.timer")
    assert not any("renew" in file.path for file in _plan(tree={**TREE, "broker": {"host": "a"}}).files)


def test_without_wheels_nothing_is_set_up() -> None:
    """Roadcast is there already: no set-up unit, and the agent needs none."""
    plan = make_plan(TREE, InstallConfig(), {}, {})
    assert SETUP not in {file.path for file in plan.files}
    assert not any(word in _text(plan, AGENT) for word in ("roadcast-setup", "set-up.sh", "Condition"))


def test_a_root_that_is_read_only_is_no_hindrance() -> None:
    """With the environment and the state elsewhere, both units wait for their places and write nowhere else."""
    plan = _plan(venv="/data/venv", tree={**TREE, "state_dir": "/data/state"})
    agent, setup = _text(plan, AGENT), _text(plan, SETUP)
    assert "RequiresMountsFor=/data/state /data/venv\n" in agent
    assert "ExecStart=/data/venv/bin/python -m roadcast.agent" in agent
    assert "ExecStart=/bin/sh /opt/roadcast/set-up.sh /data/venv " in setup
    assert "ExecStartPost=-+/bin/sh /opt/roadcast/set-up.sh /data/venv\n" in agent
    assert "ConditionPathExists=!/data/venv/ready-" in setup
    assert "RequiresMountsFor=/data/venv /opt/roadcast/wheels-" in setup


def test_a_card_s_budgets_are_kept() -> None:
    """The journal has a limit, and is synced seldom where it is kept; the replay store must fit into the state's."""
    path = "/etc/systemd/journald.conf.d/roadcast.conf"
    assert _text(_plan(log_mb=32), path) == "[Journal]\nStorage=volatile\nSystemMaxUse=32M\nRuntimeMaxUse=32M\n"
    assert "Storage=persistent\nSyncIntervalSec=15min\n" in _text(_plan(volatile_logs=False), path)
    for fits in (InstallConfig(), InstallConfig(state_mb=400)):
        check_budget(fits, 300_000_000)
    with pytest.raises(ConfigError, match="more than three quarters"):
        check_budget(InstallConfig(state_mb=399), 300_000_000)


@pytest.mark.parametrize(
    "path", ["/home/pi/state", "/root", "/tmp/x", "/var/tmp/x", "/run/x", "/var/lib/../../etc", "/a/."]
)
def test_a_state_that_would_not_last_is_refused(path: str) -> None:
    """What the unit hides, what a boot empties, and what is not where it says."""
    with pytest.raises(ConfigError, match=r"agent\.state_dir"):
        _plan(tree={**TREE, "state_dir": path})
    _plan(tree={**TREE, "state_dir": "/home2/state"})


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("{cam1: {version: 2}}", "no 'cam1' in the site; it has cam-1, cam-9"),
        ("{cam-1: {ethernets: {}}}", "version: 2"),
        ("{cam-9: {network: {version: 2}}}", "version: 2"),
    ],
)
def test_a_network_that_nobody_gets_is_refused(network: str, says: str) -> None:
    """A device that is not in the site, and what is not netplan's form."""
    site = "agent: {device: cam-9}\ndevices: {cam-1: {}}\nnetwork: "
    with pytest.raises(ConfigError, match=says):
        load_config(site + network, Site, where="site.yaml")
    assert load_config(site + "{cam-9: {version: 2}}", Site, where="site.yaml").network


def test_cameras_keep_their_names_and_the_power_mode_its_own() -> None:
    """Rules for udev by what is said of each camera; a unit that is enabled, and the script that it runs."""
    cameras = {
        "road": CameraMatch(vendor="046d", serial="A1"),
        "side": CameraMatch(port="usb-0:1.2:1.0"),
    }
    plan = _plan(cameras=cameras, power_mode="15W")
    usb = 'SUBSYSTEM=="video4linux", ATTR{index}=="0", '
    assert _text(plan, "/etc/udev/rules.d/70-roadcast.rules").splitlines() == [
        f'{usb}ENV{{ID_VENDOR_ID}}=="046d", ENV{{ID_SERIAL_SHORT}}=="A1", SYMLINK+="roadcast/road"',
        f'{usb}ENV{{ID_PATH}}=="usb-0:1.2:1.0", SYMLINK+="roadcast/side"',
    ]
    assert "ExecStart=/bin/sh /opt/roadcast/power-mode.sh 15W" in _text(plan, SETUP.replace("setup", "power"))
    assert _text(plan, "/opt/roadcast/power-mode.sh")
    assert [link.path.rpartition("/")[2] for link in plan.links] == ["roadcast-agent.service", "roadcast-power.service"]


@pytest.mark.parametrize(
    ("wheels", "says"),
    [
        ({"numpy-1-py3-none-any.whl": b""}, "roadcast-"),
        ({**WHEELS, "x-1-cp310-cp310-manylinux_2_17_x86_64.whl": b""}, "not for aarch64"),
        ({**WHEELS, "../x.whl": b""}, "not the name of a wheel"),
        ({**WHEELS, "notes.txt": b""}, "not the name of a wheel"),
    ],
)
def test_wheels_that_cannot_be_installed_are_refused(wheels: dict[str, bytes], says: str) -> None:
    """Without ours, for another processor, or no wheels at all."""
    with pytest.raises(ConfigError, match=says):
        _plan(wheels)


@pytest.mark.parametrize(
    "install",
    [
        "prefix: /opt/../etc", "prefix: opt", 'prefix: "/opt/a b"', "user: Root", 'user: "x\\nExecStart=/bin/sh"',
        "copy: {/etc/passwd: x}", "copy: {/etc/roadcast/../passwd: x}", "copy: {/etc/roadcast/device.yaml: x}",
        'groups: ["video\\nu root 0"]', "memory_mb: 1", "colour: red", "venv: /a/../b", 'power_mode: "7W; reboot"',
        'cameras: {road: {serial: "a\\", RUN+=\\"x"}}', "cameras: {../sda: {serial: a}}",
        "cameras: {road: {product: '0825'}}",
        "cameras: {a: {serial: x}, b: {serial: x}}",
    ],
)  # fmt: skip
def test_a_site_cannot_write_outside_or_into_units(install: str) -> None:
    """Paths that leave their place, and texts that would be lines of a unit, are errors of the configuration."""
    with pytest.raises(ConfigError):
        load_config(f"agent: {{}}\ninstall: {{{install}}}", Site, where="site.yaml")


def test_a_fleet_shares_what_it_shares() -> None:
    """Sections are merged, lists replaced; a device must be named where there are several."""
    site = Site(
        agent={"fleet": "city", "broker": {"host": "a", "port": 1}, "sources": [1, 2]},
        devices={"cam-1": {"broker": {"port": 2}}, "cam-2": {"sources": [3]}},
    )
    one, two = site.tree_of("cam-1"), site.tree_of("cam-2")
    assert (one["device"], one["broker"], one["sources"]) == ("cam-1", {"host": "a", "port": 2}, [1, 2])
    assert (two["device"], two["broker"], two["sources"]) == ("cam-2", {"host": "a", "port": 1}, [3])
    assert one["state_dir"] == "/var/lib/roadcast"
    for wrong in (None, "cam-3"):
        with pytest.raises(ConfigError, match="cam-1, cam-2"):
            site.tree_of(wrong)
    assert Site(agent={"device": "cam-9"}).tree_of(None)["device"] == "cam-9"
    assert msgspec.structs.replace(site, devices={"cam-1": {}}).tree_of(None)["device"] == "cam-1"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"volatile_logs": False, "system_packages": False, "user": "cam", "power_mode": "MODE_15W_6CORE"},
        {"venv": "data/environment"},
    ],
)
def test_systemd_takes_the_units(changes: dict[str, Any], tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to say; the programs that they start are put where it looks for them."""
    prefix = tmp_path / "opt"
    changes = {name: str(tmp_path / value) if name == "venv" else value for name, value in changes.items()}
    environment = Path(changes.get("venv", prefix / "venv"))
    for name in ("roadcast", "python"):
        program = environment / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    python = shutil.which("true")
    places = {f"{what}_file": f"/var/lib/roadcast/{what}.pem" for what in ("ca", "cert", "key")}
    token = EnrolmentToken("cam-1", "https://mq.example:8443", bytes(32), bytes(32)).text()
    install = InstallConfig(prefix=str(prefix), python=python or "", wheels="wheels", **changes)
    plan = make_plan({**TREE, "broker": places}, install, {}, WHEELS, token)
    units = [Path(file.path) for file in plan.files if file.path.endswith((".service", ".timer"))]
    assert len(units) == 5 + ("power_mode" in changes)
    for unit in units:
        (tmp_path / unit.name).write_text(_text(plan, str(unit)))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / units[0].name).write_text(_text(plan, AGENT).replace("Type=notify", "Tipe=notify"))
    assert "Tipe" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("systemd-sysusers") or not shutil.which("systemd-tmpfiles"),
    reason="needs root and systemd's tools",
)
def test_systemd_makes_user_and_owners_in_the_tree(tmp_path: Path) -> None:
    """At the first boot the user is there, in its groups, and alone with root may read the configuration."""
    for folder in ("etc", "var/lib"):
        (tmp_path / folder).mkdir(parents=True)
    copies = {"/etc/roadcast/secrets/key.pem": b"secret"}
    tree = {**TREE, "state_dir": "/mnt/state"}
    carry_out(make_plan(tree, InstallConfig(groups=("video",)), copies, {}), tmp_path)
    for tool in (["systemd-sysusers"], ["systemd-tmpfiles", "--create", "--prefix=/etc/roadcast", "--prefix=/mnt"]):
        subprocess.run([*tool, f"--root={tmp_path}"], capture_output=True, text=True, check=True)
    (user,) = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines() if "roadcast" in line]
    (video,) = [line for line in (tmp_path / "etc/group").read_text().splitlines() if line.startswith("video:")]
    assert video.endswith(":roadcast")
    for path, mode in {
        "etc/roadcast": 0o750,
        "etc/roadcast/secrets/key.pem": 0o640,
        "etc/roadcast/secrets": 0o750,
    }.items():
        status = (tmp_path / path).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, int(user[3]), mode), path
    assert (tmp_path / "mnt/state").stat().st_uid == int(user[2])
