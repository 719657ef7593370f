"""The codec: legal messages survive, everything else is refused by name, and nothing ever escapes but ProtocolError."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from tests.edge_protocol.strategies import bodies, headers
from tests.vectors.make import examples

KINDS = st.sampled_from(sorted(codec.BODIES))
HEADER, REPORT = examples()["knowledge-classes"]
RAW_HEADER = msgspec.msgpack.decode(msgspec.msgpack.encode(HEADER))
RAW_REPORT = msgspec.msgpack.decode(msgspec.msgpack.encode(REPORT))


def refused(payload: bytes, *, kind: m.Kind = "knowledge", fleet: str = "demo", sender: str | None = "cam-1") -> str:
    """The reason for which a payload is refused."""
    with pytest.raises(RemoteProtocolError) as error:
        codec.decode(payload, kind=kind, fleet=fleet, sender=sender)
    assert str(error.value)
    return error.value.reason


def raw(header: Any = RAW_HEADER, body: Any = RAW_REPORT) -> bytes:
    """A payload built without our types, so that it may be illegal."""
    return b"RC\x01" + msgspec.msgpack.encode((header, body))


def report(**votes: Any) -> bytes:
    """A report whose votes have some fields replaced."""
    places = {"classes": 1, "confidence": 2, "density": 3, "held": 4}
    changed = list(RAW_REPORT[7])
    for name, value in votes.items():
        changed[places[name]] = value
    return raw(body=[*RAW_REPORT[:7], changed])


@given(headers, bodies)
def test_a_legal_message_survives(header: m.Header, body: m.Body) -> None:
    """What was encoded is decoded to the same, whatever the contract allows."""
    envelope = codec.decode(
        codec.encode(header, body), kind=codec.kind_of(body), fleet=header.fleet, sender=header.sender
    )
    assert (envelope.header, envelope.body) == (header, body)


@given(st.binary(max_size=200), KINDS, st.booleans())
def test_noise_is_refused(noise: bytes, kind: m.Kind, prefixed: bool) -> None:
    """Random bytes, with or without our prefix, raise RemoteProtocolError and nothing else."""
    with contextlib.suppress(RemoteProtocolError):
        codec.decode(b"RC\x01" + noise if prefixed else noise, kind=kind, fleet="demo")
        pytest.fail("noise was taken for a message")


@given(headers, bodies, st.data())
def test_a_damaged_message_never_escapes(header: m.Header, body: m.Body, data: st.DataObject) -> None:
    """A truncated message is refused; one with a byte changed is refused or still legal."""
    payload = codec.encode(header, body)
    kind = codec.kind_of(body)
    end = data.draw(st.integers(0, len(payload) - 1))
    assert refused(payload[:end], kind=kind, fleet=header.fleet, sender=None) in {"malformed", "wrong-version"}
    at, byte = data.draw(st.integers(0, len(payload) - 1)), data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        codec.decode(payload[:at] + bytes([byte]) + payload[at + 1 :], kind=kind, fleet=header.fleet)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "malformed"),
        (b"{}", "malformed"),
        (b"RC", "wrong-version"),
        (b"RC\x02" + raw()[3:], "wrong-version"),
        (b"RC\x01", "malformed"),
        (raw() + b"\xc0", "malformed"),
        (b"RC\x01" + b"\x91" * 400_000, "malformed"),
        (b"RC\x01\xdd\xff\xff\xff\xff", "malformed"),
        (b"RC\x01" + b"\xc6\xff\xff\xff\xff", "malformed"),
        (bytes(512 * 1024 + 1), "oversized"),
        (raw(body=["unheard-of"]), "malformed"),
        (raw(body=RAW_REPORT[:5]), "malformed"),
        (raw(body=[*RAW_REPORT[:6], -1, RAW_REPORT[7]]), "malformed"),
        (raw(body=[*RAW_REPORT[:5], "g" * 64, *RAW_REPORT[6:]]), "malformed"),
        (raw(header=[*RAW_HEADER[:5], float("nan"), True]), "malformed"),
        (raw(header=[*RAW_HEADER[:2], b"short", *RAW_HEADER[3:]]), "malformed"),
        (raw(header=["f" * 65, *RAW_HEADER[1:]]), "malformed"),
    ],
)
def test_bytes_that_are_no_message_are_named(payload: bytes, reason: str) -> None:
    """Truncation, nesting bombs, false lengths, trailing bytes and broken bounds each have a reason."""
    assert refused(payload) == reason


def test_a_message_from_elsewhere_is_named() -> None:
    """Another fleet, another device's name, and a body that the topic does not carry."""
    payload = codec.encode(HEADER, REPORT)
    assert refused(payload, fleet="other") == "wrong-fleet"
    assert refused(payload, sender="cam-2") == "wrong-sender"
    assert refused(codec.encode(HEADER, m.Presence(online=True)), kind="birth") == "wrong-kind"
    assert codec.decode(payload, kind="knowledge", fleet="demo").body == REPORT


@pytest.mark.parametrize(
    ("votes", "reason"),
    [
        ({"classes": ["u1", [3], b"\0\3\1"]}, "wrong-shape"),
        ({"classes": ["u2", [3], bytes(6)]}, "wrong-shape"),
        ({"classes": ["u1", [3, 1], bytes(3)]}, "wrong-shape"),
        ({"classes": ["u1", [20_001], bytes(20_001)]}, "oversized"),
        ({"confidence": ["u1", [2], bytes(2)]}, "wrong-shape"),
        ({"density": ["f2", [3], bytes(6)]}, "wrong-shape"),
        ({"held": ["u1", [0], b""]}, "wrong-shape"),
        ({"held": ["u1", [3], b"\1\1\x09"]}, "wrong-shape"),
        ({"held": ["i1", [3], b"\1\1\1"]}, "wrong-shape"),
        ({"density": ["u1", [4], bytes(3)]}, "array-shape"),
        ({"density": ["u1", [-3], bytes(3)]}, "array-shape"),
        ({"density": ["u1", [3, 1, 1, 1, 1], bytes(3)]}, "array-shape"),
        ({"density": ["u1", [2**62, 2**62], bytes(3)]}, "array-shape"),
        ({"density": ["u1", [0, 2**62], b""]}, "oversized"),
        ({"density": ["O", [3], bytes(24)]}, "array-dtype"),
    ],
)
def test_a_report_of_another_shape_is_named(votes: dict[str, Any], reason: str) -> None:
    """A report whose arrays disagree, lie about their size or name impossible classes is refused."""
    assert refused(report(**votes)) == reason


@pytest.mark.parametrize(
    ("mean", "spread", "reason"),
    [
        ([np.nan, 0], [1, 1], "not-finite"),
        ([0, 0], [1, np.inf], "not-finite"),
        ([0, 0], [1, 0], "wrong-shape"),
        ([0, 0], [1, -1], "wrong-shape"),
        ([0, 64], [1, 1], "wrong-shape"),
        ([0, -65504], [1, 1], "wrong-shape"),
        ([0, 0], [1, 0.006], "wrong-shape"),
        ([0, 0], [1, 149], "wrong-shape"),
        ([0, 0], [1], "wrong-shape"),
    ],
)
def test_a_forecast_must_be_finite_with_a_spread(mean: list[float], spread: list[float], reason: str) -> None:
    """NaN, infinity, a mean and a spread that no level stands for are refused, here and from a peer."""
    means, spreads = (np.array([values], "f2") for values in (mean, spread))
    with pytest.raises(LocalProtocolError) as error:
        m.ForecastVotes(pack(means), pack(spreads))
    assert error.value.reason == reason
    votes = ["forecasts", *([a.dtype.str[1:], a.shape, a.tobytes()] for a in (means, spreads))]
    assert refused(raw(body=[*RAW_REPORT[:7], votes])) == reason


def test_a_forecast_has_a_spread_for_each_mean() -> None:
    """Spreads of another shape are refused."""
    with pytest.raises(LocalProtocolError, match="spread must be"):
        m.ForecastVotes(pack(np.zeros((2, 1), "f2")), pack(np.ones((3, 1), "f2")))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_no_numbers_are_refused(number: float) -> None:
    """NaN and infinity are refused in every message that carries values: missing is absent, not NaN."""
    for build in (
        lambda: m.Telemetry({"x": number}),
        lambda: m.DeviceState("t", "idle", 0, {}, {"x": number}),
        lambda: m.IntervalResult("t", "s", 0.0, 1.0, 1.0, {"x": number}),
    ):
        with pytest.raises(LocalProtocolError, match="leave out"):
            build()
    assert refused(raw(body=["telemetry", {"x": number}]), kind="telemetry") == "not-finite"


def test_the_task_of_an_unreadable_report_is_found() -> None:
    """A report of another shape still says its task; noise, another body and a task that is no text say none."""
    broken = raw(body=[*RAW_REPORT[:7], [0]])
    assert refused(broken) == "malformed"
    assert codec.task_of(broken) == "vehicle"
    for payload in (
        b"",
        b"RC\x01",
        raw(body={}),
        raw(body=["report"]),
        raw(body=["report", 7]),
        raw(header=[], body=7),
    ):
        assert codec.task_of(payload) is None


@given(noise=st.binary(max_size=200), prefixed=st.booleans())
def test_noise_has_no_task_and_never_escapes(noise: bytes, *, prefixed: bool) -> None:
    """Whatever bytes come, the answer is text or none."""
    assert isinstance(codec.task_of((b"RC\x01" if prefixed else b"") + noise), str | None)


def test_a_message_too_large_is_ours_to_refuse() -> None:
    """A body beyond its kind's limit never leaves, even though each of its fields is legal."""
    values = {f"{i:04d}" + "x" * 60: 1.0 for i in range(1024)}
    assert len(codec.encode(HEADER, m.Telemetry(values))) < codec.MAX_BYTES["telemetry"]
    with pytest.raises(LocalProtocolError) as error:
        codec.encode(HEADER, m.ReleaseOffer(bytes(256 * 1024)))
    assert error.value.reason == "oversized"


def test_votes_know_their_number() -> None:
    """Both kinds of votes say how many samples they answer."""
    assert [examples()[name][1].votes.samples for name in ("knowledge-classes", "knowledge-forecasts")] == [3, 2]
