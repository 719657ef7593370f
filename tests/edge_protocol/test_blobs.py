"""Blobs: cut, checked and pulled through loss, duplicates and reordering."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.blobs import BATCH, CHUNK_BYTES, MAX_BLOB_BYTES, BlobRef, Pull, cut
from edge_protocol.errors import DigestError, LocalProtocolError


@given(st.binary(min_size=1, max_size=2000), st.integers(1, 700))
def test_the_chunks_make_the_blob(data: bytes, chunk_bytes: int) -> None:
    """Joined, the chunks are the blob; each passes its own check and no other's, unless they are equal."""
    ref, chunks = cut(data, chunk_bytes)
    assert b"".join(chunks) == data
    assert len(chunks) == ref.chunks
    for index, chunk in enumerate(chunks):
        ref.check_chunk(index, chunk)
        with pytest.raises(DigestError, match="does not match"):
            ref.check_chunk(index, chunk + b"!")


@given(
    data=st.binary(min_size=1, max_size=400),
    loss=st.floats(0, 0.8),
    window=st.integers(1, 20),
    held=st.sets(st.integers(0, 39)),
    seed=st.integers(0, 2**32),
)
def test_a_pull_completes_through_a_bad_link(data: bytes, loss: float, window: int, held: set[int], seed: int) -> None:
    """Whatever is lost, repeated, reordered or damaged, the pull ends with exactly the blob and within its window."""
    random, now = Random(seed), 0.0
    ref, chunks = cut(data, 10)
    pull = Pull(ref, have={index for index in held if index < ref.chunks}, window=window, timeout_s=1.0)
    got = {index: chunks[index] for index in pull.have}
    for _ in range(3000):
        if pull.complete:
            break
        wanted, again = pull.ask(now)
        assert len(wanted) <= window
        assert set(again) <= set(wanted)
        assert not set(wanted) & pull.have
        deliveries = [i for i in wanted for _ in range(random.randrange(1, 3)) if random.random() > loss]
        random.shuffle(deliveries)
        for index in deliveries:
            if random.random() < 0.1:
                with pytest.raises(DigestError):
                    pull.take(index, b"damaged")
            new = pull.take(index, chunks[index])
            assert new == (index not in got)
            got[index] = chunks[index]
        now += 1.0
    assert b"".join(got[index] for index in range(ref.chunks)) == data
    assert pull.missing() == []
    assert pull.next_deadline() is None


def test_time_alone_makes_a_pull_ask_again() -> None:
    """Before the timeout nothing new is asked for beyond the window; after it the same chunks are, and counted."""
    ref, _ = cut(bytes(100), 10)
    pull = Pull(ref, window=4, timeout_s=5.0)
    assert pull.next_deadline() is None
    assert pull.ask(100.0) == ([0, 1, 2, 3], [])
    assert pull.ask(104.9) == ([], [])
    assert pull.next_deadline() == 105.0
    assert pull.ask(105.0) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert pull.retries == 4
    pull.forget()
    assert pull.next_deadline() is None
    assert pull.ask(106.0) == ([0, 1, 2, 3], [])
    assert pull.retries == 4


def test_fresh_chunks_are_asked_for_once_half_the_window_is_free() -> None:
    """Few packets; and a limit from outside takes them one by one, however wide the window is."""
    ref, chunks = cut(bytes(range(200)), 10)
    pull = Pull(ref, window=8)
    assert pull.ask(0.0) == ([0, 1, 2, 3, 4, 5, 6, 7], [])
    for index in (3, 0, 1):
        pull.take(index, chunks[index])
        assert pull.ask(0.0) == ([], [])
    pull.take(2, chunks[2])
    assert pull.ask(0.0, most=1) == ([8], [])
    pull.take(4, chunks[4])
    assert pull.ask(0.0, most=0) == ([], [])
    assert pull.ask(0.0) == ([9, 10, 11, 12], [])


def test_a_wide_window_is_filled_a_packet_at_a_time() -> None:
    """However wide it is, what one SUBSCRIBE packet holds is worth asking for."""
    ref, chunks = cut(bytes(range(200)), 2)
    pull = Pull(ref, window=64)
    assert len(pull.ask(0.0)[0]) == 64
    for index in range(BATCH):
        assert pull.ask(0.0) == ([], [])
        pull.take(index, chunks[index])
    assert pull.ask(0.0) == ([*range(64, 64 + BATCH)], [])


def test_what_runs_out_is_asked_for_again_oldest_first() -> None:
    """Also beyond a limit from outside, and without those that were asked for later."""
    ref, chunks = cut(bytes(range(100)), 10)
    pull = Pull(ref, window=4, timeout_s=5.0)
    pull.ask(0.0, most=2)
    pull.ask(1.0)
    assert pull.ask(5.0, most=1) == ([0], [0])
    assert pull.ask(6.0, most=2) == ([1, 2], [1, 2])
    assert pull.next_deadline() == 6.0
    assert pull.take(2, chunks[2])
    assert pull.ask(6.0) == ([3], [3])


def test_another_connection_is_given_its_own_time() -> None:
    """What was renewed runs out later, and its round trip is nobody's measure."""
    ref, chunks = cut(bytes(range(100)), 10)
    pull = Pull(ref, window=2, timeout_s=5.0)
    pull.ask(0.0)
    assert pull.waited_s(0, 2.0) == 2.0
    pull.renew(100.0)
    assert pull.waited_s(0, 101.0) is None
    assert pull.ask(104.0) == ([], [])
    assert pull.ask(105.0) == ([0, 1], [0, 1])
    assert pull.take(0, chunks[0])


def test_a_chunk_that_does_not_exist_is_refused() -> None:
    """Indices outside the blob are no chunks."""
    ref, chunks = cut(b"abc")
    for index in (-1, 1):
        with pytest.raises(DigestError, match="has no chunk"):
            ref.check_chunk(index, chunks[0])


@pytest.mark.parametrize(
    ("sha256", "size", "chunk_bytes", "digests", "reason"),
    [
        ("a" * 64, 0, 10, b"", "oversized"),
        ("a" * 64, MAX_BLOB_BYTES + 1, CHUNK_BYTES, b"", "oversized"),
        ("a" * 64, 10, 0, b"", "oversized"),
        ("a" * 64, 2**70, 2**70, b"", "oversized"),
        ("g" * 64, 10, 10, bytes(32), "bad-blob"),
        ("a" * 63, 10, 10, bytes(32), "bad-blob"),
        ("a" * 64, 11, 10, bytes(32), "bad-blob"),
        ("a" * 64, 10, 10, bytes(33), "bad-blob"),
    ],
)
def test_an_impossible_reference_is_refused(
    sha256: str, size: int, chunk_bytes: int, digests: bytes, reason: str
) -> None:
    """Sizes out of bounds, hashes that are none, and hash lists of another length."""
    with pytest.raises(LocalProtocolError) as error:
        BlobRef(sha256, size, chunk_bytes, digests)
    assert error.value.reason == reason


def test_nothing_cannot_be_cut() -> None:
    """An empty blob has no chunks and no reference."""
    with pytest.raises(LocalProtocolError):
        cut(b"")
