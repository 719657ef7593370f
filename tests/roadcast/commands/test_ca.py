"""``roadcast ca`` and ``client enrol``: the commands in the order of an installation, by files and over HTTPS."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from edge_protocol.errors import CheckFailedError, ConfigError, RoadcastError, StoreError
from roadcast.cli import app
from tests.edge_client.device_rig import device_config


def roadcast(*arguments: object) -> Result:
    """Run a command in this process; errors come out."""
    return CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)


def told(*arguments: object) -> Any:
    """Run a command; return its JSON."""
    done = roadcast(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """An authority's folder."""
    roadcast("ca", "init", "--dir", tmp_path / "ca", "--fleet", "sim")
    return tmp_path / "ca"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A device's YAML that names where its identity goes."""
    import msgspec  # noqa: PLC0415

    named = {f"{what}_file": str(tmp_path / "id" / f"{what}.pem") for what in ("ca", "cert", "key")}
    made = msgspec.to_builtins(device_config(tmp_path, broker={"port": 8883, **named}))
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(made))
    return tmp_path / "device.yaml"


def test_a_device_is_certified_by_files(ca: Path, config: Path, tmp_path: Path) -> None:
    """Request, signature, installation: the key never leaves; the list shows the device; revoking shows too."""
    request, certificate = tmp_path / "cam-1.csr", tmp_path / "cam-1.pem"
    assert "ca sign cam-1" in roadcast("client", "enrol", "-c", config, "--csr-out", request).stdout
    told("ca", "sign", "cam-1", request, "--dir", ca, "--out", certificate)
    said = told("client", "enrol", "-c", config, "--install", certificate, "--authority", ca / "ca.pem")
    assert said["name"] == "cam-1"
    assert stat.S_IMODE((tmp_path / "id" / "key.pem").stat().st_mode) == 0o600
    assert [(c["name"], c["state"]) for c in told("ca", "list", "--dir", ca)] == [("cam-1", "valid")]
    assert told("ca", "revoke", "cam-1", "--dir", ca, "--reason", "stolen")["revoked"] == 1
    assert "revoked\t" in roadcast("ca", "list", "--dir", ca).stdout
    with pytest.raises(CheckFailedError, match="no valid certificate"):
        roadcast("ca", "revoke", "cam-1", "--dir", ca)
    told("ca", "crl", "--dir", ca, "--out", tmp_path / "crl.pem")
    assert b"X509 CRL" in (tmp_path / "crl.pem").read_bytes()


def test_a_device_is_certified_over_https_by_the_real_service(ca: Path, config: Path) -> None:
    """The service says where it is, trades a token, renews, and ends in order on SIGTERM."""
    command = [sys.executable, "-m", "roadcast", "ca", "serve", "--dir", str(ca), "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ) as service:
        assert service.stdout is not None
        try:
            url = service.stdout.readline().decode().strip()
            token = told("ca", "token", "cam-1", "--dir", ca, "--url", url)["token"]
            assert "certified until" in roadcast("client", "enrol", "-c", config, "--token", token).stdout
            before = (config.parent / "id" / "cert.pem").read_bytes()
            roadcast("client", "renew", "-c", config)
            assert (config.parent / "id" / "cert.pem").read_bytes() == before
            roadcast("client", "renew", "-c", config, "--force")
            assert (config.parent / "id" / "cert.pem").read_bytes() != before
        finally:
            service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 0


def test_a_passphrase_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encrypted authority signs with either, and not without; listing and revoking need none."""
    (tmp_path / "pass").write_text("open sesame\n")
    roadcast("ca", "init", "--dir", tmp_path / "ca", "--fleet", "sim", "--passphrase-file", tmp_path / "pass")
    crl = ("ca", "crl", "--dir", tmp_path / "ca", "--out", tmp_path / "crl.pem")
    with pytest.raises(ConfigError, match="passphrase"):
        roadcast(*crl)
    told(*crl, "--passphrase-file", tmp_path / "pass")
    monkeypatch.setenv("ROADCAST_CA_PASSPHRASE", "open sesame")
    told(*crl)
    monkeypatch.delenv("ROADCAST_CA_PASSPHRASE")
    assert told("ca", "list", "--dir", tmp_path / "ca") == []


def test_an_authority_made_elsewhere_is_taken_over(ca: Path, tmp_path: Path) -> None:
    """Chain and key of another authority make the same authority here; half of the pair is an error."""
    chain, key = ("--import-chain", ca / "ca.pem"), ("--import-key", ca / "ca.key")
    said = told("ca", "init", "--dir", tmp_path / "own", "--fleet", "sim", *chain, *key)
    assert (tmp_path / "own" / "ca.pem").read_bytes() == (ca / "ca.pem").read_bytes()
    assert len(said["fingerprint"]) == 64
    with pytest.raises(ConfigError, match="belong together"):
        roadcast("ca", "init", "--dir", tmp_path / "half", "--fleet", "sim", *chain)


def test_one_way_at_a_time(config: Path, tmp_path: Path) -> None:
    """No way, two ways, a certificate without its authority and a missing file are errors that say what to give."""
    for arguments in ((), ("--token", "x", "--csr-out", tmp_path / "x"), ("--install", tmp_path / "x")):
        with pytest.raises(ConfigError, match="give --token"):
            roadcast("client", "enrol", "-c", config, *arguments)
    with pytest.raises(ConfigError, match="cannot be read"):
        roadcast("client", "enrol", "-c", config, "--install", tmp_path / "no", "--authority", tmp_path / "no")
    with pytest.raises(StoreError, match="cannot be read"):
        roadcast("ca", "init", "--dir", tmp_path / "x", "--fleet", "x", "--passphrase-file", tmp_path / "no")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("token ../x --dir {ca} --url https://h:1", 78, "device '../x' must be"),
        ("token cam-1 --dir {ca} --url https://h:1 --hours 1e308", 78, "up to 8784 hours"),
        ("sign cam-1 {junk} --dir {ca} --out {tmp}/x", 3, "certificate request"),
        ("init --dir {tmp}/new --fleet ci/ty", 78, "fleet 'ci/ty' must be"),
        ("init --dir {tmp}/new --fleet city --days 1e308", 78, "longer than 36500 days"),
        ("init --dir {tmp}/new --fleet city --device-days nan", 78, "longer than 36500 days"),
        ("init --dir {junk} --fleet city", 4, "cannot be made"),
    ],
)
def test_a_user_s_mistake_is_named_and_is_no_bug(ca: Path, tmp_path: Path, words: str, code: int, says: str) -> None:
    """What was written wrong, with the exit code for that; nothing was made."""
    (tmp_path / "junk").write_text("junk")
    typed = words.format(ca=ca, tmp=tmp_path, junk=tmp_path / "junk").split()
    with pytest.raises(RoadcastError, match=says) as caught:
        roadcast("ca", *typed)
    assert caught.value.exit_code == code
    assert not (tmp_path / "new").exists()
    assert told("ca", "list", "--dir", ca) == []
