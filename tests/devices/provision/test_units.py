"""Texts for systemd: what a shell tells it once they are there, and where renewal waits for its places."""

from __future__ import annotations

import subprocess
from pathlib import Path

from devices.provision.power_mode import POWER_UNIT
from devices.provision.site import InstallConfig
from devices.provision.units import ACTIVATION, AGENT_UNIT, RENEW_TIMER, SETUP_UNIT, renew_unit
from tests.fakes.target import tools_path


def _activated(tmp_path: Path, *units: str) -> list[str]:
    """Run the activation where these units lie, as if systemd ran, with stand-ins for its tools; what they heard."""
    for folder in ("units", "running"):
        (tmp_path / folder).mkdir()
    for unit in units:
        (tmp_path / "units" / unit).touch()
    script = ACTIVATION.replace("/run/systemd/system", str(tmp_path / "running"))
    script = script.replace("/etc/systemd/system", str(tmp_path / "units"))
    log = tmp_path / "log"
    tools = ("systemctl", "systemd-sysusers", "systemd-tmpfiles")
    path = tools_path(tmp_path / "bin", **{tool: f'echo "{tool} $*" >>{log}' for tool in tools})
    subprocess.run(["sh", "-ec", script], env={"PATH": path}, check=True, timeout=30)
    return log.read_text().splitlines()


def test_power_mode_and_renewal_begin_before_the_next_boot(tmp_path: Path) -> None:
    """A board that stays up for its certificate's whole life renews it: the timer is started, not only enabled."""
    heard = _activated(tmp_path, POWER_UNIT, RENEW_TIMER)
    for unit in (POWER_UNIT, RENEW_TIMER, AGENT_UNIT):
        assert f"systemctl restart --no-block {unit}" in heard
    assert heard.index("systemctl daemon-reload") < heard.index(f"systemctl restart --no-block {RENEW_TIMER}")


def test_what_is_not_there_is_not_started(tmp_path: Path) -> None:
    """Without a certificate and a power mode the agent alone is."""
    assert [line for line in _activated(tmp_path, AGENT_UNIT) if " restart " in line] == [
        f"systemctl restart --no-block {AGENT_UNIT}"
    ]


def test_the_agent_is_restarted_last(tmp_path: Path) -> None:
    """The set-up is waited for; a shell that stops at errors leaves the old agent when the wheels are not installed."""
    heard = _activated(tmp_path, SETUP_UNIT)
    assert heard[-2:] == [f"systemctl restart {SETUP_UNIT}", f"systemctl restart --no-block {AGENT_UNIT}"]


def test_renewal_runs_from_the_environment_that_the_agent_has() -> None:
    """On a partition of its own as well, and not before that is mounted."""
    text = renew_unit(InstallConfig(venv="/data/venv"), "/data/state")
    assert "ExecStart=/data/venv/bin/roadcast client renew" in text
    assert "RequiresMountsFor=/data/state /data/venv\n" in text
