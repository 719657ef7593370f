"""Ed25519 signatures over release manifests (RFC 8032); owns keys as bytes, never as files.

The Update Framework takes this place later: the seam is `sign` and `Keyring.open`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_protocol.errors import ConfigError, SignatureError
from edge_protocol.manifest import ReleaseManifest, decode_manifest, encode_manifest
from edge_protocol.messages import SignedManifest

KEY_BYTES = 32


def generate_key() -> bytes:
    """Draw a new private key: 32 bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key(private: bytes) -> bytes:
    """Derive the public key, 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def key_id(public: bytes) -> str:
    """Name a public key: the first 16 hex digits of its SHA-256."""
    return sha256(public).hexdigest()[:16]


def sign(manifest: ReleaseManifest, private: bytes) -> SignedManifest:
    """Sign a manifest."""
    data = encode_manifest(manifest)
    signature = Ed25519PrivateKey.from_private_bytes(private).sign(data)
    return SignedManifest(data, key_id(public_key(private)), signature)


class Keyring:
    """The public keys a device trusts.

    Args:
        keys: public keys, 32 bytes each.

    Raises:
        ConfigError: no key, or one of another length.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        trusted = list(keys)
        if not trusted or any(len(key) != KEY_BYTES for key in trusted):
            raise ConfigError(f"trusted release keys: need one or more Ed25519 public keys of {KEY_BYTES} bytes each")
        self._keys: Mapping[str, bytes] = {key_id(key): key for key in trusted}

    def open(self, signed: SignedManifest) -> ReleaseManifest:
        """Return the manifest when a trusted key signed exactly these bytes.

        Raises:
            SignatureError: unknown key or wrong signature.
            RemoteProtocolError: signed, but not a manifest.
        """
        public = self._keys.get(signed.key_id)
        if public is None:
            trusted = ", ".join(self._keys)
            raise SignatureError(f"release is signed by key {signed.key_id!r}; this device trusts {trusted}")
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signed.signature, signed.manifest)
        except InvalidSignature:
            raise SignatureError(f"release manifest does not match its signature by key {signed.key_id!r}") from None
        return decode_manifest(signed.manifest)
