"""Signed manifests: only exactly these bytes by a trusted key open."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.errors import ConfigError, IncompatibleError, RemoteProtocolError, SignatureError
from edge_protocol.manifest import decode_manifest, encode_manifest
from edge_protocol.messages import SignedManifest
from edge_protocol.signing import Keyring, generate_key, key_id, public_key, sign
from tests.vectors.make import KEY, manifest

RING = Keyring([public_key(KEY)])
SIGNED = sign(manifest(), KEY)


def test_a_signed_manifest_opens() -> None:
    """Signing and opening give the manifest back, among several trusted keys."""
    assert Keyring([public_key(generate_key()), public_key(KEY)]).open(SIGNED) == manifest()


@given(st.integers(0, 8 * len(SIGNED.manifest) - 1))
def test_any_changed_bit_is_found(bit: int) -> None:
    """A manifest with one bit changed does not open."""
    changed = bytearray(SIGNED.manifest)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureError, match="does not match"):
        RING.open(SignedManifest(bytes(changed), SIGNED.key_id, SIGNED.signature))


def test_other_keys_do_not_open() -> None:
    """A key that is not trusted is refused by name, and so is one that claims a trusted name."""
    other = generate_key()
    stranger = sign(manifest(), other)
    with pytest.raises(SignatureError, match=key_id(public_key(other))):
        RING.open(stranger)
    with pytest.raises(SignatureError):
        RING.open(SignedManifest(stranger.manifest, SIGNED.key_id, stranger.signature))


@pytest.mark.parametrize("keys", [[], [b"short"], [bytes(33)]])
def test_a_keyring_needs_keys(keys: list[bytes]) -> None:
    """No key, and keys of another length, are configuration errors."""
    with pytest.raises(ConfigError, match="trusted release keys"):
        Keyring(keys)


def test_a_manifest_finds_its_artifacts() -> None:
    """The artifact of a tier, every blob once, and an error that names the tiers there are."""
    release = manifest()
    assert release.artifact_for("nano").student == "depthwise"
    assert len(release.blobs) == 4
    with pytest.raises(IncompatibleError, match="it has nano"):
        release.artifact_for("base")


@pytest.mark.parametrize("metric", [float("nan"), float("inf")])
def test_bytes_that_are_no_manifest_are_refused(metric: float) -> None:
    """Noise, truncation, NaN and an impossible task are all RemoteProtocolError, whoever signed them."""
    good = encode_manifest(manifest())
    raw = msgspec.msgpack.decode(good)
    task = {**raw[2], "labels": ["only one"]}
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        b"\x91" * 100_000,
        msgspec.msgpack.encode([*raw[:2], task, *raw[3:]]),
        msgspec.msgpack.encode([*raw[:5], {"a": metric}, *raw[6:]]),
        msgspec.msgpack.encode([raw[0], 0, *raw[2:]]),
    ):
        with pytest.raises(RemoteProtocolError) as error:
            decode_manifest(bad)
        assert error.value.reason == "malformed"


def test_a_manifest_of_a_server_without_deltas_is_understood() -> None:
    """Its artifacts end before that field: there are none then."""
    plain = msgspec.msgpack.decode(encode_manifest(manifest()))
    for artifact in plain[4]:
        del artifact[6:]
    assert decode_manifest(msgspec.msgpack.encode(plain)).artifact_for("nano").deltas == ()
