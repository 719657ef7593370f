"""A site's tokens: from `roadcast ca token` into a tree, and what the device makes of one at its first boot."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from edge_protocol.errors import ConfigError
from roadcast.cli import app
from roadcast.site_files import read_plan
from tests.fakes.authority import make_authority, serving
from tests.fakes.clock import FakeClock

STATE = "/data/roadcast"


def _site(folder: Path, **broker: str) -> Path:
    """A site of two devices whose identity lies in their state."""
    named = {f"{what}_file": f"{STATE}/id/{what}.pem" for what in ("ca", "cert", "key")} | broker
    agent = {
        "fleet": "sim",
        "tier": "small",
        "task": "vehicle",
        "state_dir": STATE,
        "trusted_root": "/etc/roadcast/root.json",
        "broker": {"host": "10.0.0.2", "port": 8883, **named},
        "sources": [{"name": "road", "uri": "csi://0"}],
    }
    site = {"agent": agent, "devices": {"cam-1": {}, "cam-2": {}}, "install": {"tokens": "tokens"}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    return folder / "site.yaml"


def _token(folder: Path, name: str, url: str = "https://mq.example:8443") -> str:
    command = ["ca", "token", name, "--dir", str(folder / "ca"), "--url", url, "--out", str(folder / "tokens")]
    return CliRunner().invoke(app, command, catch_exceptions=False).stdout.strip()


def test_a_fresh_board_enrols_itself(tmp_path: Path) -> None:
    """The unit's own line with the unit's own environment gets a certificate from the real service; again is fine."""
    clock = FakeClock(time.time())
    with serving(make_authority(tmp_path / "ca", now=clock()), clock) as url:
        assert _token(tmp_path, "cam-1", url) == str(tmp_path / "tokens/cam-1")
        assert (tmp_path / "tokens/cam-1").stat().st_mode & 0o777 == 0o600
        files = {file.path: file for file in read_plan(_site(tmp_path), "cam-1").files}
        unit = files["/etc/systemd/system/roadcast-enrol.service"].content.decode()
        said = {name: value for name, _, value in (line.partition("=") for line in unit.splitlines()) if value}
        secret = files[said["EnvironmentFile"]]
        assert (secret.mode, said["ConditionPathExists"]) == (0o640, secret.path)
        assert said["ExecStartPost"] == f"+/bin/rm -f {secret.path}"
        text = files["/etc/roadcast/device.yaml"].content.decode()
        (tmp_path / "device.yaml").write_text(text.replace(STATE, str(tmp_path / "state")))
        program, *arguments = shlex.split(said["ExecStart"].replace("/etc/roadcast", str(tmp_path)))
        assert program == "/opt/roadcast/venv/bin/roadcast"
        environment = os.environ | dict([secret.content.decode().strip().split("=", 1)])
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-m", "roadcast", *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.startswith("cam-1: certified until")
        assert (tmp_path / "state/id/key.pem").stat().st_mode & 0o777 == 0o600


def test_a_device_without_a_token_is_not_enrolled(tmp_path: Path) -> None:
    """It has its certificate already: no unit, no secret."""
    make_authority(tmp_path / "ca")
    _token(tmp_path, "cam-1")
    assert not any("enrol" in file.path or "token" in file.path for file in read_plan(_site(tmp_path), "cam-2").files)


def test_a_token_that_would_not_do_is_refused_before_a_card_is_written(tmp_path: Path) -> None:
    """One that others may read, another device's, one that was cut short, and a place where the agent cannot write."""
    make_authority(tmp_path / "ca")
    token, site = Path(_token(tmp_path, "cam-1")), _site(tmp_path)
    assert read_plan(site, "cam-1").links[-2].path.endswith("roadcast-enrol.service")
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_plan(site, "cam-1")
    token.chmod(0o600)
    with pytest.raises(ConfigError, match="must lie below"):
        read_plan(_site(tmp_path, key_file="/etc/roadcast/key.pem"), "cam-1")
    token.rename(token.with_name("cam-2"))
    with pytest.raises(ConfigError, match="'cam-2' is for 'cam-1'"):
        read_plan(_site(tmp_path), "cam-2")
    token.with_name("cam-2").write_text("rct1.abc")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plan(_site(tmp_path), "cam-2")


def test_a_folder_of_tokens_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """One letter wrong would leave every device without its identity."""
    site = _site(tmp_path)
    with pytest.raises(ConfigError, match=r"install\.tokens: .*tokens is no folder"):
        read_plan(site, "cam-1")
    (tmp_path / "tokens").mkdir()
    assert read_plan(site, "cam-1").files


def test_a_replay_store_fits_by_default_as_well(tmp_path: Path) -> None:
    """What the agent keeps when nothing is said is held against the state's budget too."""
    site = _site(tmp_path)
    (tmp_path / "tokens").mkdir()
    for state_mb, fits in {16: False, 26: False, 27: True}.items():
        site.write_text(site.read_text().partition("install:")[0] + f"install: {{state_mb: {state_mb}}}\n")
        if fits:
            read_plan(site, "cam-1")
        else:
            with pytest.raises(ConfigError, match="20000000 is more than three quarters"):
                read_plan(site, "cam-1")
