"""The range coder: what goes in comes out, in about as many bytes as it is surprising, and nothing else is taken."""

from __future__ import annotations

from contextlib import suppress
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.errors import RemoteProtocolError
from edge_protocol.range_coder import Decoder, Encoder

CONTEXTS = 4
DECISIONS = st.lists(st.tuples(st.integers(0, CONTEXTS - 1), st.sampled_from([0, 0, 0, 0, 1])), max_size=400)


def coded(decisions: list[tuple[int, int]]) -> bytes:
    """The stream that holds these decisions."""
    encoder = Encoder(CONTEXTS)
    for context, bit in decisions:
        assert encoder.code(context, bit) == bit
    return encoder.finish()


def read(stream: bytes, contexts: list[int]) -> list[int]:
    """Every decision of a stream, to its end."""
    decoder = Decoder(CONTEXTS, stream)
    bits = [decoder.code(context) for context in contexts]
    decoder.finish()
    return bits


@given(DECISIONS)
def test_decisions_survive(decisions: list[tuple[int, int]]) -> None:
    """Any decisions in any contexts come back, and the stream ends where they end."""
    assert read(coded(decisions), [context for context, _ in decisions]) == [bit for _, bit in decisions]


@given(st.lists(st.integers(0, 2**10 - 1), max_size=50))
def test_numbers_survive(values: list[int]) -> None:
    """Numbers coded as trees of decisions come back."""
    encoder = Encoder(1024)
    for value in values:
        assert encoder.symbol(0, 10, value) == value
    decoder = Decoder(1024, encoder.finish())
    assert [decoder.symbol(0, 10, 0) for _ in values] == values
    decoder.finish()


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_stream_is_as_long_as_it_is_surprising(share: float) -> None:
    """The bytes of random decisions are within a tenth and a few bytes of their entropy."""
    bits = (np.random.default_rng(0).random(20_000) < share).astype(int).tolist()
    entropy = -(share * log2(share) + (1 - share) * log2(1 - share)) * len(bits) / 8
    assert entropy * 0.95 < len(coded([(0, bit) for bit in bits])) < entropy * 1.1 + 8


def test_a_carry_runs_through_a_row_of_full_bytes() -> None:
    """Decisions that push the interval over a row of 0xff bytes still come back."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        decisions = [(0, int(bit)) for bit in rng.random(200) < 0.97]
        assert read(coded(decisions), [0] * 200) == [bit for _, bit in decisions]


@given(st.binary(max_size=40), st.integers(0, 2000))
def test_hostile_bytes_end_in_an_answer_or_a_refusal(stream: bytes, count: int) -> None:
    """Arbitrary bytes give decisions or a refusal, and never anything else."""
    with suppress(RemoteProtocolError):
        assert set(read(stream, [index % CONTEXTS for index in range(count)])) <= {0, 1}


def test_a_stream_of_another_length_is_refused() -> None:
    """Three bytes fewer, one more, or none at all are refused, and the message says which."""
    rng = np.random.default_rng(1)
    decisions = [(int(c), int(b)) for c, b in zip(rng.integers(0, 4, 900), rng.integers(0, 2, 900), strict=True)]
    stream, contexts = coded(decisions), [context for context, _ in decisions]
    for broken, words in (
        (stream[:-4], "ends early"),
        (stream + b"\0", "left after"),
        (b"", "begin no"),
        (b"\xff" * 9, "begin no"),
    ):
        with pytest.raises(RemoteProtocolError, match=words):
            read(broken, contexts)
