"""What a round may ask of trunks and what a report may hold of one: the bounds, checked where a message is read."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_protocol import codec
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.trunks import MAX_CHANGE_BYTES
from tests.vectors.make import examples


def told(name: str, field: int, value: object) -> bytes:
    """An example's payload in which one field of the last structure, what is said of the trunk, is another."""
    header, body = examples()[name]
    tree: Any = msgspec.msgpack.decode(msgspec.msgpack.encode((header, body)))
    tree[1][-1][field] = value
    return b"RC\x01" + msgspec.msgpack.encode(tree)


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 0), (0, 1001), (1, 1), (1, 257), (2, 0.0), (2, 1.1), (2, float("nan")), (3, 0.0), (3, 2.0), (3, float("nan"))],
)
def test_a_round_cannot_ask_for_more_than_the_bounds(field: int, value: float) -> None:
    """Steps, batch, rate and length have an upper and a lower end, and NaN is beyond both."""
    with pytest.raises(RemoteProtocolError) as refused:
        codec.decode(told("round-trunk", field, value), kind="round", fleet="demo")
    assert refused.value.reason in {"malformed", "not-finite"}


@pytest.mark.parametrize(
    ("field", "value"), [(0, "short"), (1, -1), (2, b""), (2, bytes(MAX_CHANGE_BYTES + 1)), (2, "text")]
)
def test_a_change_beyond_the_bounds_is_refused_with_its_report(field: int, value: object) -> None:
    """No hash, a negative count, no bytes or too many: the message is not legal."""
    with pytest.raises(RemoteProtocolError) as refused:
        codec.decode(told("coded-trunk", field, value), kind="knowledge", fleet="demo")
    assert refused.value.reason == "malformed"


@pytest.mark.parametrize("name", ["round-trunk", "coded-trunk"])
def test_a_message_of_a_version_without_trunks_is_read(name: str) -> None:
    """What an older side leaves out is as if it said nothing of trunks."""
    header, body = examples()[name]
    tree: Any = msgspec.msgpack.decode(msgspec.msgpack.encode((header, body)))
    payload = b"RC\x01" + msgspec.msgpack.encode([tree[0], tree[1][:-1]])
    assert codec.decode(payload, kind=codec.kind_of(body), fleet="demo").body == msgspec.structs.replace(
        body, trunk=None
    )
