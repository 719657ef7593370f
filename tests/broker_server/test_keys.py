"""Private keys of roles: encrypted at rest, private, and anything else at the same seam."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, Key

from broker_server.keys import KeyFolder, Keys, passphrase_from
from edge_protocol.errors import ConfigError


def secret(_file: str) -> str:
    """A passphrase."""
    return "correct horse"


def test_a_key_is_sealed_and_signs(tmp_path: Path) -> None:
    """Mode 0600, nothing of the key in clear, and a signature that its public half verifies."""
    folder = KeyFolder(tmp_path / "keys", secret)
    key = folder.make("root")
    (path,) = (tmp_path / "keys").glob("*.pem")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    (signer,) = Keys([KeyFolder(tmp_path / "none"), KeyFolder(tmp_path / "keys", secret)]).signers([key.keyid, "ff"])
    key.verify_signature(signer.sign(b"data"), b"data")


@pytest.mark.parametrize("passphrase", [None, lambda _: "", lambda _: "wrong"])
def test_a_sealed_key_without_its_passphrase_is_refused(tmp_path: Path, passphrase: object) -> None:
    """The message names the file."""
    key = KeyFolder(tmp_path, secret).make("targets")
    with pytest.raises(ConfigError, match=r"targets-.*\.pem cannot be opened"):
        KeyFolder(tmp_path, passphrase).signer(key.keyid)  # type: ignore[arg-type]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A key in clear is only as good as its permissions; one that was taken away is just not here."""
    key = KeyFolder(tmp_path).make("timestamp")
    (path,) = tmp_path.glob("*.pem")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        KeyFolder(tmp_path).signer(key.keyid)
    path.unlink()
    assert Keys([KeyFolder(tmp_path)]).signers([key.keyid]) == []
    (tmp_path / "keys.json").write_text("{")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        KeyFolder(tmp_path).signer(key.keyid)


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    """Eight operators rotate roles at the same moment: the list names every key that was handed out."""
    start = Barrier(8)

    def make(number: int) -> str:
        start.wait()
        return KeyFolder(tmp_path / "keys").make(f"role-{number}").keyid

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert len(Keys([KeyFolder(tmp_path / "keys")]).signers(made)) == 8


def test_a_token_signs_where_a_file_would(tmp_path: Path) -> None:
    """The signer that is registered for a URI's scheme opens it; its trouble is a ConfigError."""
    key = KeyFolder(tmp_path).make("root")
    inside = KeyFolder(tmp_path).signer(key.keyid)

    class Token(CryptoSigner):
        @classmethod
        def from_priv_key_uri(cls, priv_key_uri: str, public_key: Key, secrets_handler: object = None) -> CryptoSigner:
            if priv_key_uri.endswith("gone") or not isinstance(inside, CryptoSigner):
                raise OSError("no token in the slot")
            return inside

    SIGNER_FOR_URI_SCHEME["token"] = Token
    try:
        entries = msgspec.json.decode((tmp_path / "keys.json").read_bytes())
        for uri in ("token:1", "token:gone"):
            entries[key.keyid]["uri"] = uri
            (tmp_path / "keys.json").write_bytes(msgspec.json.encode(entries))
            if uri == "token:1":
                assert KeyFolder(tmp_path).signer(key.keyid) is inside
            else:
                with pytest.raises(ConfigError, match="no token in the slot"):
                    KeyFolder(tmp_path).signer(key.keyid)
    finally:
        del SIGNER_FOR_URI_SCHEME["token"]


def test_a_passphrase_file_is_private_and_says_something(tmp_path: Path) -> None:
    """Open to others, empty or missing is refused; a line end is not part of it."""
    path = tmp_path / "passphrase"
    with pytest.raises(ConfigError, match="cannot be read"):
        passphrase_from(path)
    path.write_text("\n")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="is empty"):
        passphrase_from(path)
    path.write_text("horse\n")
    found = passphrase_from(path)
    assert found is not None
    assert (found("any"), passphrase_from(None)) == ("horse", None)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        passphrase_from(path)
