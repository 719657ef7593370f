"""Coded votes: lossless beside any base, short beside a near one, and refused beside another or when damaged."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.arrays import pack
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.vote_codec import CodedVotes, decode_votes, encode_votes, shape_of
from edge_protocol.votes import MOST_MEAN, MOST_SPREAD, ClassVotes, ForecastVotes, Votes, votes_of_levels


def class_votes(seed: int, samples: int, classes: int, moved: float = 1.0) -> ClassVotes:
    """Random votes of one seed; `moved` of them are drawn anew."""
    rng = np.random.default_rng(7)
    draws = [rng.integers(0, top, samples) for top in (classes, 4, 8)]
    anew = np.random.default_rng(seed)
    moves = anew.random(samples) < moved
    names, sure, density = (
        np.where(moves, anew.integers(0, top, samples), old) for old, top in zip(draws, (classes, 4, 8), strict=True)
    )
    held = anew.integers(0, 2, classes)
    return ClassVotes(
        *(pack(each.astype("u1")) for each in (names * (density > 0), sure * (density > 0), density, held))
    )


def forecast_votes(seed: int, samples: int, horizons: int) -> ForecastVotes:
    """Random forecasts, a few of them at the ends of their levels."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([3, 4000], p=[0.9, 0.1], size=(samples, horizons))
    mean, spread = (
        np.rint(rng.normal(size=scale.shape) * scale).clip(-most, most).astype(np.int64)
        for most in (MOST_MEAN, MOST_SPREAD)
    )
    return votes_of_levels(mean, spread)


SEEDS = st.integers(0, 1000)


@given(SEEDS, SEEDS, st.integers(0, 40), st.integers(1, 256), st.booleans())
def test_class_votes_survive(seed: int, other: int, samples: int, classes: int, beside: bool) -> None:
    """Votes of any shape come back, alone and beside any base of their shape."""
    votes, base = class_votes(seed, samples, classes), class_votes(other, samples, classes) if beside else None
    coded = encode_votes(votes, base, 3)
    assert (coded.base, coded.samples, coded.outputs) == (3 if beside else 0, samples, classes)
    assert decode_votes(coded, "classify", base) == votes


@given(SEEDS, SEEDS, st.integers(0, 20), st.integers(1, 5), st.booleans())
def test_forecasts_survive(seed: int, other: int, samples: int, horizons: int, beside: bool) -> None:
    """Forecasts on levels come back, alone and beside any base of their shape."""
    votes, base = forecast_votes(seed, samples, horizons), forecast_votes(other, samples, horizons) if beside else None
    assert decode_votes(encode_votes(votes, base, 3), "forecast", base) == votes


def test_what_hardly_changed_costs_hardly_a_byte() -> None:
    """Beside votes of which one in ten changed, votes take less than a third of what they take alone."""
    base, votes = class_votes(1, 1000, 6, moved=0), class_votes(2, 1000, 6, moved=0.1)
    alone, beside = len(encode_votes(votes).data), len(encode_votes(votes, base, 1).data)
    assert beside < alone / 3 < 1000


@pytest.mark.parametrize(
    ("votes", "base", "other"),
    [
        (class_votes(2, 200, 6, 0.1), class_votes(1, 200, 6, 0), class_votes(3, 200, 6, 0.05)),
        (forecast_votes(2, 50, 3), forecast_votes(1, 50, 3), forecast_votes(3, 50, 3)),
    ],
)
def test_another_base_is_never_taken(votes: Votes, base: Votes, other: Votes) -> None:
    """Votes coded beside one base are refused beside another, beside none, and as the other kind."""
    coded, kind = encode_votes(votes, base, 1), shape_of(votes)[0]
    for wrong in (other, None, class_votes(1, 10, 6)):
        with pytest.raises(RemoteProtocolError, match=r"digest|early|left|beside|no votes|beyond"):
            decode_votes(coded, kind, wrong)
    with pytest.raises(RemoteProtocolError):
        decode_votes(coded, "forecast" if kind == "classify" else "classify")


@given(st.data(), st.sampled_from([class_votes(2, 60, 6), forecast_votes(2, 20, 2)]))
def test_a_damaged_stream_is_refused(data: st.DataObject, votes: Votes) -> None:
    """A stream that is shorter or longer is refused as malformed; one with a byte changed is too, or says the same."""
    coded = encode_votes(votes)
    at, byte = data.draw(st.integers(0, len(coded.data) - 1)), data.draw(st.integers(1, 255))
    changed = coded.data[:at] + bytes([coded.data[at] ^ byte]) + coded.data[at + 1 :]
    with suppress(RemoteProtocolError):
        assert decode_votes(msgspec.structs.replace(coded, data=changed), shape_of(votes)[0]) == votes
    for stream in (coded.data[:at], coded.data + bytes([byte])):
        with pytest.raises(RemoteProtocolError) as error:
            decode_votes(msgspec.structs.replace(coded, data=stream), shape_of(votes)[0])
        assert error.value.reason == "malformed"


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(1, 256), st.sampled_from(["classify", "forecast"]))
def test_hostile_streams_are_refused(stream: bytes, samples: int, outputs: int, kind: str) -> None:
    """Arbitrary bytes for any shape raise RemoteProtocolError and nothing else."""
    with suppress(RemoteProtocolError):
        decode_votes(CodedVotes(samples, outputs, 0, bytes(8), stream), kind)  # type: ignore[arg-type]
        pytest.fail("noise was taken for votes")


def test_only_levels_are_coded() -> None:
    """A silent vote that names a class, a forecast between two steps, and a base of another shape are our own bug."""
    one, none = pack(np.ones(1, "u1")), pack(np.zeros(1, "u1"))
    between = ForecastVotes(pack(np.full((1, 1), 0.01, "f2")), pack(np.ones((1, 1), "f2")))
    for votes in (ClassVotes(one, none, none, pack(np.ones(2, "u1"))), between):
        with pytest.raises(LocalProtocolError, match="not on levels"):
            encode_votes(votes)
    with pytest.raises(LocalProtocolError, match="beside a base"):
        encode_votes(class_votes(1, 5, 6), class_votes(1, 6, 6))
