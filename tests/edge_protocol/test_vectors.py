"""The golden vectors: today's code writes exactly these bytes and reads them as what they mean."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest

from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.manifest import decode_manifest
from tests.vectors.make import FLEET, FOLDER, examples, manifest, plain

NAMES = sorted(examples())


def stored(name: str) -> dict[str, Any]:
    """A vector as it was committed."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_every_message_type_has_a_vector() -> None:
    """No type of body is without an example, and no file without an example in the script."""
    assert {type(body) for _, body in examples().values()} == set(get_args(m.Body))
    assert {file.stem for file in FOLDER.glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_are_still_produced(name: str) -> None:
    """Encoding the example gives the stored bytes."""
    assert codec.encode(*examples()[name]).hex() == stored(name)["hex"]


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_are_still_understood(name: str) -> None:
    """Decoding the stored bytes gives the example, and the stored meaning."""
    vector = stored(name)
    sender = vector["header"]["sender"]
    envelope = codec.decode(bytes.fromhex(vector["hex"]), kind=vector["kind"], fleet=FLEET, sender=sender)
    assert (envelope.header, envelope.body) == examples()[name]
    assert plain(envelope.header) == vector["header"]
    assert plain(envelope.body) == vector["body"]


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_are_what_the_documentation_says(name: str) -> None:
    """Without our types: prefix, then one array of a header's seven fields and of a tag with the body's fields."""
    payload = bytes.fromhex(stored(name)["hex"])
    assert payload[:3] == b"RC\x01"
    header, body = msgspec.msgpack.decode(payload[3:])
    expected_header, expected = examples()[name]
    assert len(header) == len(expected_header.__struct_fields__) == 7
    assert body[0] == type(expected).__struct_config__.tag
    assert len(body) == 1 + len(expected.__struct_fields__)


def test_the_offered_release_opens() -> None:
    """The stored offer holds the stored manifest."""
    vector = stored("release")
    envelope = codec.decode(bytes.fromhex(vector["hex"]), kind="release", fleet=FLEET, sender="server")
    assert isinstance(envelope.body, m.ReleaseOffer)
    assert decode_manifest(envelope.body.manifest) == manifest()
