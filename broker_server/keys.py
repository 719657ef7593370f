"""Private keys of signing roles: folders of encrypted PEM files, and the seam to tokens; owns no metadata.

::

    <folder>/keys.json       public keys, and by key the URI that `securesystemslib` finds its private half by
    <folder>/<name>.pem      PKCS#8, encrypted when there is a passphrase; readable by the owner only

A key on a token or in a cloud's key store has its own URI scheme there (``hsm:``, ``awskms:`` …) instead of ``pem:``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from broker_server.store.lock import locked
from edge_protocol.errors import ConfigError
from edge_protocol.files import write_atomic

PEM = "pem:"
Passphrase = Callable[[str], str]
"""Name of a key file → its passphrase, "" for none."""
_OTHERS = 0o077


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A key in ``keys.json``: what it is for, where its private half is, and its public half as in metadata."""

    name: str
    uri: str
    public: dict[str, Any]


class KeyFolder:
    """The keys in one folder: on the server's disk, or on a medium that lies in a safe most of the time.

    Args:
        folder: made when the first key is.
        passphrase: asked for each file that is made or opened; None for keys that are not encrypted.
    """

    def __init__(self, folder: Path, passphrase: Passphrase | None = None) -> None:
        self.folder, self._passphrase = folder, passphrase

    def make(self, name: str) -> Key:
        """Draw an Ed25519 key, and keep its private half.

        Raises:
            StoreError: the disk refused.
        """
        private = Ed25519PrivateKey.generate()
        public: Key = SSlibKey.from_crypto(private.public_key())
        file = f"{name}-{public.keyid[:8]}.pem"
        secret = self._secret(file)
        sealed = BestAvailableEncryption(secret) if secret else NoEncryption()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
        with locked(self.folder):
            write_atomic(self.folder / file, pem, mode=0o600)
            entries = self._entries() | {public.keyid: _Entry(name=name, uri=PEM + file, public=public.to_dict())}
            write_atomic(self.folder / "keys.json", msgspec.json.format(msgspec.json.encode(entries)))
        return public

    def signer(self, keyid: str) -> Signer | None:
        """What signs with a key; None when its private half is not here.

        Raises:
            ConfigError: it is here and cannot be used.
        """
        entry = self._entries().get(keyid)
        if entry is None:
            return None
        public = Key.from_dict(keyid, dict(entry.public))
        try:
            if not entry.uri.startswith(PEM):
                return Signer.from_priv_key_uri(entry.uri, public, self._passphrase)
            path = self.folder / entry.uri.removeprefix(PEM)
            return self._from_pem(path, public) if path.exists() else None
        except ConfigError:
            raise
        except Exception as error:  # signers of tokens and clouds raise what they like
            raise ConfigError(f"key {entry.name!r} in {self.folder}: {type(error).__name__}: {error}") from error

    def _from_pem(self, path: Path, public: Key) -> Signer:
        if path.stat().st_mode & _OTHERS:
            raise ConfigError(f"key {path} can be read by others; run: chmod 600 {path}")
        data = path.read_bytes()
        secret = self._secret(path.name) if b"ENCRYPTED" in data else None
        try:
            private = load_pem_private_key(data, secret)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"key {path} cannot be opened: wrong or no passphrase, or a damaged file") from error
        assert isinstance(private, Ed25519PrivateKey)
        assert isinstance(public, SSlibKey)
        return CryptoSigner(private, public)

    def _secret(self, file: str) -> bytes | None:
        return (self._passphrase(file).encode() or None) if self._passphrase else None

    def _entries(self) -> dict[str, _Entry]:
        path = self.folder / "keys.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, _Entry])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error


class Keys:
    """Several folders as one.

    Args:
        folders: looked through in order.
    """

    def __init__(self, folders: Iterable[KeyFolder]) -> None:
        self._folders = tuple(folders)

    def signers(self, keyids: Iterable[str]) -> list[Signer]:
        """What signs with those of the keys that are here.

        Raises:
            ConfigError: one is here and cannot be used.
        """
        found = (next(filter(None, (folder.signer(keyid) for folder in self._folders)), None) for keyid in keyids)
        return [signer for signer in found if signer is not None]


def passphrase_from(path: Path | None) -> Passphrase | None:
    """A passphrase that stands in a file, for keys that a server opens by itself; None without a file.

    Raises:
        ConfigError: the file cannot be read, is open to others, or empty.
    """
    if path is None:
        return None
    try:
        if path.stat().st_mode & _OTHERS:
            raise ConfigError(f"passphrase {path} can be read by others; run: chmod 600 {path}")
        text = path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"passphrase {path}: cannot be read: {error}") from error
    if not text:
        raise ConfigError(f"passphrase {path} is empty")
    return lambda _: text
