"""A plan as a Debian package: read, unpacked, installed and removed by dpkg's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from devices.provision.deb import Package, package
from devices.provision.plan import Plan, PlannedFile, PlannedLink
from devices.provision.power_mode import POWER_UNIT
from edge_protocol.errors import ConfigError

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg here")
UNIT = PlannedFile("/etc/systemd/system/x.service", b"[Service]\n")
SECRET = PlannedFile("/etc/roadcast/key.pem", b"secret", 0o640)
WHEEL = PlannedFile("/opt/roadcast/wheels-1/a_b-1.0-py3-none-any.whl", os.urandom(100_001))
LONG = PlannedFile(f"/opt/{'long-' * 30}name", b"x")
ENABLE = PlannedLink("/etc/systemd/system/multi-user.target.wants/x.service", UNIT.path)
OTHER = PlannedLink("/etc/other", "/dev/null")
POWER = PlannedFile(f"/etc/systemd/system/{POWER_UNIT}", b"[Service]\n")
PLAN = Plan((UNIT, SECRET, WHEEL, LONG, POWER), (ENABLE, OTHER))


def _made(folder: Path, plan: Plan = PLAN, version: str = "1.2.3") -> tuple[Package, Path]:
    made = package(plan, "cam-1", "aarch64", version)
    (folder / made.file).write_bytes(made.content)
    return made, folder / made.file


def _ask(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def test_dpkg_reads_the_package(tmp_path: Path) -> None:
    """Its fields, its list with modes and owners, and the links that are no unit's."""
    made, path = _made(tmp_path)
    info = _ask("dpkg-deb", "--info", str(path))
    for field in ("Package: roadcast-device", "Version: 1.2.3+", "Architecture: arm64", "Depends: python3 (>= 3.10)"):
        assert field in info
    assert made.file.startswith("roadcast-device_1.2.3+")
    listed = {
        line.split()[5]: (line.split()[0], line.split()[1]) for line in _ask("dpkg-deb", "-c", str(path)).splitlines()
    }
    assert listed["./etc/roadcast/key.pem"] == ("-rw-r-----", "root/root")
    assert listed["./opt/roadcast/"] == ("drwxr-xr-x", "root/root")
    assert listed[f".{WHEEL.path}"][0] == "-rw-r--r--"
    assert listed["./etc/other"][0] == "lrwxrwxrwx"
    assert f".{ENABLE.path}" not in listed


def test_dpkg_unpacks_what_was_planned(tmp_path: Path) -> None:
    """Every byte; conffiles are those below /etc/roadcast, and the checksums are right."""
    _, path = _made(tmp_path)
    _ask("dpkg-deb", "-R", str(path), str(tmp_path / "out"))
    for file in PLAN.files:
        assert (tmp_path / "out" / file.path[1:]).read_bytes() == file.content
    control = tmp_path / "out/DEBIAN"
    assert (control / "conffiles").read_text().split() == [SECRET.path]
    subprocess.run(["md5sum", "-c", "--quiet", "DEBIAN/md5sums"], cwd=tmp_path / "out", check=True)
    for script in ("postinst", "prerm", "postrm"):
        assert (control / script).stat().st_mode & 0o111
        subprocess.run(["sh", "-n", str(control / script)], check=True)


def test_the_same_plan_makes_the_same_bytes(tmp_path: Path) -> None:
    """Whenever and wherever it is made; another file is another version."""
    assert package(PLAN, "cam-1", "aarch64", "1") == package(PLAN, "cam-1", "aarch64", "1")
    other = Plan((*PLAN.files[:3], POWER, PlannedFile(LONG.path, b"y")), PLAN.links)
    versions = {_ask("dpkg-deb", "-f", str(_made(tmp_path, plan)[1]), "Version") for plan in (PLAN, other)}
    assert len(versions) == 2


def test_a_path_that_leaves_the_tree_is_refused() -> None:
    """As everywhere."""
    with pytest.raises(ConfigError):
        package(Plan((PlannedFile("/etc/../x", b""),), ()), "a", "aarch64", "1")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to install")
def test_dpkg_installs_keeps_what_was_edited_and_removes(tmp_path: Path) -> None:
    """Below a folder, with stand-ins for systemd's tools: enabled, an edited file survives, and all goes on purging."""
    log, root = tmp_path / "log", tmp_path / "root"
    (tmp_path / "bin").mkdir()
    for tool in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
        (tmp_path / "bin" / tool).write_text(f'#!/bin/sh\necho "{tool} $*" >>{log}\n')
        (tmp_path / "bin" / tool).chmod(0o755)
    (root / "var/lib/dpkg/info").mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()

    def dpkg(*argv: str) -> None:
        options = [f"--root={root}", "--force-script-chrootless", "--force-depends", "--force-architecture"]
        env = {
            **os.environ,
            "PATH": f"{tmp_path / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        command = ["dpkg", *options, "--force-confold", f"--log={tmp_path / 'dpkg.log'}", *argv]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    dpkg("-i", str(_made(tmp_path)[1]))
    assert (root / "etc/roadcast/key.pem").read_bytes() == b"secret"
    assert (root / "etc/roadcast/key.pem").stat().st_mode & 0o777 == 0o640
    assert "systemctl enable x.service" in log.read_text()
    assert "systemd-sysusers /etc/sysusers.d/roadcast.conf" in log.read_text()
    (root / "etc/roadcast/key.pem").write_text("edited")
    power = root / f"etc/systemd/system/{POWER_UNIT}"
    assert power.exists()
    newer = Plan((UNIT, PlannedFile(SECRET.path, b"newer", 0o640), WHEEL), PLAN.links)
    dpkg("-i", str(_made(tmp_path, newer, "1.2.4")[1]))
    assert (root / "etc/roadcast/key.pem").read_text() == "edited"
    assert not (root / LONG.path[1:]).exists()
    assert not power.exists()
    dpkg("-P", "roadcast-device")
    assert "systemctl disable x.service" in log.read_text()
    assert not (root / "etc/roadcast").exists()
    assert not (root / "opt/roadcast").exists()
