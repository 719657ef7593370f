"""The broker section of a configuration: defaults, bounds and files."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError
from edge_protocol.transport.settings import BrokerSettings, read_password, tls_context
from tests.fakes.authority import NOW, certified, make_authority
from tests.fakes.certificates import Authority


def test_defaults_need_nothing() -> None:
    """An empty section means a broker on this machine, without TLS or password."""
    settings = load_config("", BrokerSettings, where="x.yaml")
    assert (settings.host, settings.port) == ("127.0.0.1", 1883)
    assert read_password(settings) is None
    assert tls_context(settings) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port: 70000", "65535"),
        ("keepalive_s: 0", ">= 1"),
        ("prot: 1883", "did you mean 'port'"),
        ("cert_file: a", "belong together"),
        ("{cert_file: a, key_file: b}", "needs ca_file"),
        ("password_file: a", "needs username"),
    ],
)
def test_a_wrong_section_is_explained(text: str, message: str) -> None:
    """Each mistake names the file and what is wrong with which key."""
    with pytest.raises(ConfigError, match=message) as error:
        load_config(text, BrokerSettings, where="x.yaml")
    assert str(error.value).startswith("x.yaml: ")


def test_certificates_are_loaded(tmp_path: Path) -> None:
    """With an authority, a certificate and a key the context checks the broker and speaks TLS 1.2 or later."""
    authority = Authority()
    certificate, key = authority.issue(tmp_path / "me", "cam-1")
    ca = authority.write(tmp_path / "ca.pem")
    context = tls_context(BrokerSettings(ca_file=str(ca), cert_file=str(certificate), key_file=str(key)))
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_an_identity_is_where_the_configuration_says(tmp_path: Path) -> None:
    """Three names make an identity, fewer are an error that says which; what a crash left is finished at the start."""
    authority = make_authority(tmp_path / "ca")
    files = certified(authority, tmp_path / "cam", "cam-1")
    settings = BrokerSettings(ca_file=str(files.ca), cert_file=str(files.certificate), key_file=str(files.key))
    assert settings.identity == files
    with pytest.raises(ConfigError, match="give ca_file, cert_file and key_file"):
        _ = BrokerSettings(ca_file="a").identity
    steps = files.steps(authority.sign(files.request("cam-1"), "cam-1", (), NOW), authority.anchors, "cam-1")
    for step in steps[:3]:
        step()
    assert tls_context(settings) is not None
    assert not files.next_certificate.exists()
