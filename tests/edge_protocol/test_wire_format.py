"""The wire format's page says what the code does: every structure, field, place, tag, kind and limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from edge_protocol import codec, topics
from edge_protocol import messages as m
from edge_protocol.arrays import _DTYPES, Array
from edge_protocol.blobs import BlobRef
from edge_protocol.manifest import Artifact, Delta, ReleaseManifest
from edge_protocol.trunks import TrunkAsk, TrunkChange
from tests.vectors.make import examples

PAGE = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text(encoding="utf-8")
STRUCTURES: list[type[msgspec.Struct]] = [
    *get_args(m.Body),
    m.Header,
    m.RunningTask,
    m.ClassVotes,
    m.ForecastVotes,
    m.CodedVotes,
    TrunkAsk,
    TrunkChange,
    Array,
    BlobRef,
    ReleaseManifest,
    Delta,
    Artifact,
]


def section(structure: type[msgspec.Struct]) -> str:
    """The part of the page about a structure."""
    found = re.search(
        rf"^### {structure.__name__}(, tag `(?P<tag>\w+)`)?\n(?P<text>.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, f"{structure.__name__} has no section"
    assert found["tag"] == structure.__struct_config__.tag
    return found["text"]


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.__name__)
def test_every_field_stands_in_its_place(structure: type[msgspec.Struct]) -> None:
    """The numbered rows of a structure's table are its fields, in order, counted after the tag."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| ([^|]+) \|", section(structure), re.MULTILINE)
    first = 1 if structure.__struct_config__.tag else 0
    assert [(int(at), name) for at, name, _ in rows] == list(enumerate(structure.__struct_fields__, start=first))
    optional = [name for _, name, kind in rows if "MAY be absent" in kind]
    assert optional == list(structure.__struct_fields__)[len(rows) - len(structure.__struct_defaults__) :]


def test_every_kind_has_its_bodies_and_limit() -> None:
    """The table of kinds is the codec's."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    said = {kind: (set(bodies.split(" or ")), int(limit.replace(",", ""))) for kind, bodies, limit in rows}
    assert said == {
        kind: ({body.__name__ for body in bodies}, codec.MAX_BYTES[kind]) for kind, bodies in codec.BODIES.items()
    }


def test_names_in_running_text_are_those_of_the_code() -> None:
    """Kinds of topics, types of numbers, prefix and reasons stand there as the code has them."""
    assert f"Kinds up: `{' '.join(topics.UP_KINDS)}`. Kinds down: `{' '.join(topics.DOWN_KINDS)}`." in PAGE
    assert f"`{' '.join(_DTYPES)}`" in PAGE
    assert " ".join(f"0x{byte:02x}" for byte in codec.MAGIC) in PAGE
    assert f"0x{codec.VERSION:02x}" in PAGE


def test_an_appended_field_is_ignored_and_a_missing_one_has_its_default() -> None:
    """As section 10 promises: an element more is no error, and one with a default may be left out."""
    header, ack = examples()["ack"]
    head: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(header))
    assert isinstance(ack, m.Ack)
    for body in (["ack", ack.message_id, True], ["ack", ack.message_id, True, "", "from the future"]):
        payload = b"RC\x01" + msgspec.msgpack.encode((head, body))
        assert codec.decode(payload, kind="ack", fleet="demo", sender="server").body == ack
