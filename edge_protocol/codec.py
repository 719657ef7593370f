"""Envelope ⇄ bytes, with bounds; owns magic, version and size limits, and the translation of every decoding error.

A payload is ``b"RC"``, one version byte, and MessagePack. Nothing is allocated before its size was checked.
"""

from __future__ import annotations

from typing import Final

import msgspec

from edge_protocol import messages as m
from edge_protocol.errors import LocalProtocolError, ProtocolError, RemoteProtocolError

MAGIC: Final = b"RC"
VERSION: Final = 1
_PREFIX: Final = MAGIC + bytes([VERSION])

BODIES: Final[dict[m.Kind, tuple[type, ...]]] = {
    "birth": (m.Birth,),
    "state": (m.DeviceState,),
    "knowledge": (m.KnowledgeReport, m.CodedReport, m.PrototypeReport),
    "telemetry": (m.Telemetry,),
    "deployment": (m.Deployment,),
    "need": (m.Need,),
    "result": (m.IntervalResult,),
    "measured": (m.Measured,),
    "ack": (m.Ack,),
    "command": (m.Rebirth, m.Label, m.Measure),
    "round": (m.RoundCall, m.PrototypeCall),
    "release": (m.ReleaseOffer,),
    "online": (m.Presence,),
}
"""Which bodies a topic of each kind may carry."""

MAX_BYTES: Final[dict[m.Kind, int]] = dict.fromkeys(BODIES, 16 * 1024) | {
    "knowledge": 512 * 1024,
    "result": 128 * 1024,
    "state": 128 * 1024,
    "telemetry": 128 * 1024,
    "round": 128 * 1024,
    "release": 256 * 1024,
}
"""Largest payload of each kind, in bytes."""

_KIND_OF: Final[dict[type, m.Kind]] = {body: kind for kind, bodies in BODIES.items() for body in bodies}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(m.Envelope)
_peek = msgspec.msgpack.Decoder(tuple[msgspec.Raw, list[msgspec.Raw]])


def kind_of(body: m.Body) -> m.Kind:
    """Name the topic kind that carries this body."""
    return _KIND_OF[type(body)]


def encode(header: m.Header, body: m.Body) -> bytes:
    """Write a message down.

    Raises:
        LocalProtocolError: ``oversized``; a peer would refuse it.
    """
    payload = _PREFIX + _encoder.encode((header, body))
    kind = kind_of(body)
    if len(payload) > MAX_BYTES[kind]:
        raise LocalProtocolError("oversized", f"{kind} of {len(payload)} bytes exceeds {MAX_BYTES[kind]}")
    return payload


def decode(payload: bytes, *, kind: m.Kind, fleet: str, sender: str | None = None) -> m.Envelope:
    """Read a message that came on a topic of `kind`.

    Args:
        payload: the bytes.
        kind: what the topic says the body is.
        fleet: our fleet.
        sender: who the topic says it is from; None when the topic names nobody.

    Raises:
        RemoteProtocolError: with `reason` ``oversized``, ``malformed``, ``wrong-version``, ``wrong-kind``,
            ``wrong-fleet``, ``wrong-sender``, or what the message's own check says (``wrong-shape``, ``not-finite``).
    """
    if len(payload) > MAX_BYTES[kind]:
        raise RemoteProtocolError("oversized", f"{kind} of {len(payload)} bytes exceeds {MAX_BYTES[kind]}")
    if payload[:2] != MAGIC:
        raise RemoteProtocolError("malformed", f"{kind} does not begin with {MAGIC!r}: not a Roadcast message")
    if payload[:3] != _PREFIX:
        found = payload[2:3].hex() or "none"
        raise RemoteProtocolError("wrong-version", f"{kind} is of version {found}, this side speaks {VERSION}")
    envelope = _parse(memoryview(payload)[3:], kind)
    _check_origin(envelope, kind, fleet, sender)
    return envelope


def task_of(payload: bytes) -> str | None:
    """Name the task of a report that cannot be read: what stands where a report names it; None when that is no name."""
    try:
        body = _peek.decode(memoryview(payload)[3:])[1]
        return msgspec.msgpack.decode(body[1], type=str)
    except (msgspec.MsgspecError, IndexError, RecursionError):
        return None


def _parse(packed: memoryview, kind: m.Kind) -> m.Envelope:
    try:
        return _decoder.decode(packed)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ProtocolError):
            raise RemoteProtocolError(error.__cause__.reason, f"{kind}: {error.__cause__}") from error
        raise RemoteProtocolError("malformed", f"{kind}: {error}") from error
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise RemoteProtocolError("malformed", f"{kind} is not MessagePack: {error}") from error


def _check_origin(envelope: m.Envelope, kind: m.Kind, fleet: str, sender: str | None) -> None:
    header, body = envelope.header, envelope.body
    if type(body) not in BODIES[kind]:
        raise RemoteProtocolError("wrong-kind", f"a {kind} topic carried a {kind_of(body)} message")
    if header.fleet != fleet:
        raise RemoteProtocolError("wrong-fleet", f"{kind} of fleet {header.fleet!r} came to fleet {fleet!r}")
    if sender is not None and header.sender != sender:
        raise RemoteProtocolError(
            "wrong-sender", f"{kind} on the topic of {sender!r} claims to be from {header.sender!r}"
        )
