"""Which targets `roadcast flash --ssh` means, and where it takes the password from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.provision.connection import Login
from devices.provision.site import Site, SshConfig
from edge_protocol.errors import ConfigError, RoadcastError
from roadcast.ssh_fleet import PASSWORD, login_of, read_password, targets_of

SITE = Site(
    agent={"fleet": "city"},
    devices={"cam-1": {}, "cam-2": {}},
    ssh={"cam-1": SshConfig(host="10.0.0.5", user="pi"), "cam-2": SshConfig(host="cam-2.local", port=2222)},
)


def test_names_addresses_and_all_are_understood() -> None:
    """A name of the inventory, an address with a device, the only device of a site, and the whole inventory."""
    assert targets_of(SITE, "all", None) == SITE.ssh
    assert targets_of(SITE, "cam-2", None) == {"cam-2": SITE.ssh["cam-2"]}
    given_device = targets_of(SITE, "cam-1=root@[fe80::1]:23,cam-2=h", None)
    assert given_device == {"cam-1": SshConfig(host="fe80::1", port=23), "cam-2": SshConfig(host="h")}
    assert targets_of(SITE, "pi@h:5", "cam-1") == {"cam-1": SshConfig(host="h", port=5, user="pi")}
    assert list(targets_of(Site(agent={"device": "cam-9"}), "h", None)) == ["cam-9"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("10.0.0.9", "name one of"),
        ("cam-3=h", "no 'cam-3'"),
        ("cam-1=a,cam-1=b", "meant twice"),
        ("cam-1=h:0", "--ssh"),
        ("cam-1=-oProxyCommand=x", "--ssh"),
        ("cam-1=a b", "--ssh"),
        ("", "neither"),
    ],
)
def test_what_is_no_target_is_refused(asked: str, says: str) -> None:
    """An address without a device in a fleet, an unknown device, one twice, and text that is no address."""
    with pytest.raises(ConfigError, match=says):
        targets_of(SITE, asked, None)
    with pytest.raises(ConfigError, match="no inventory"):
        targets_of(Site(agent={"device": "cam-9"}), "all", None)


@pytest.mark.parametrize("asked", ["all", "cam-1", "cam-2", "h,cam-2", "cam-2=h"])
def test_a_device_beside_targets_that_have_names_is_refused(asked: str) -> None:
    """`--device` does not choose among targets: it says which device one address is, and nothing else."""
    with pytest.raises(ConfigError, match="--device cam-1: only says which device one address is"):
        targets_of(SITE, asked, "cam-1")


@pytest.mark.parametrize(("asked", "device"), [("cam-1=pi@10.0.0.9", None), ("pi@10.0.0.9", "cam-1")])
def test_a_device_at_another_address_keeps_its_host_key(asked: str, device: str | None) -> None:
    """The inventory's fingerprint is the device's, wherever it is reached; user and port are those of the address."""
    pinned = SshConfig(host="10.0.0.5", port=2222, fingerprint="SHA256:" + "a" * 43)
    site = msgspec.structs.replace(SITE, ssh={"cam-1": pinned})
    moved = SshConfig(host="10.0.0.9", user="pi", fingerprint=pinned.fingerprint)
    assert targets_of(site, asked, device) == {"cam-1": moved}


def test_there_is_one_way_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is named beats the environment's password; two that are named are refused, none is ignored."""
    monkeypatch.setenv(PASSWORD, "from outside")
    file, hosts = tmp_path / "key", tmp_path / "hosts"
    assert login_of(hosts, file, None, ask=False) == Login(hosts, file)
    assert login_of(hosts, None, None, ask=False) == Login(hosts, password="from outside")
    for identity, password_file, ask in [(file, file, False), (file, None, True), (None, file, True)]:
        with pytest.raises(ConfigError, match="name one of them"):
            login_of(hosts, identity, password_file, ask=ask)


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_clear_error(asked: str) -> None:
    """The parser never fails in another way."""
    try:
        found = targets_of(SITE, asked, "cam-1")
    except RoadcastError:
        return
    assert found
    assert all(1 <= target.port <= 65535 for target in found.values())


def test_a_password_comes_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that others may read is refused; without any there is none."""
    file = tmp_path / "password"
    file.write_text("from a file\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_password(file, ask=False)
    file.chmod(0o600)
    monkeypatch.setenv(PASSWORD, "from outside")
    assert read_password(file, ask=False) == "from a file"
    assert read_password(None, ask=False) == "from outside"
    monkeypatch.delenv(PASSWORD)
    assert read_password(None, ask=False) is None
    with pytest.raises(ConfigError, match="cannot be read"):
        read_password(tmp_path / "none", ask=False)
