"""Blobs on the disk: the whole hash goes along in whatever order chunks come, and what is on the disk counts."""

from __future__ import annotations

import random
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.blob_files import BlobFiles
from edge_protocol.blobs import cut
from edge_protocol.errors import DigestError

DATA = random.Random(8).randbytes(9_500)
REF, CHUNKS = cut(DATA, 1000)


@given(st.permutations(range(REF.chunks)), st.integers(0, REF.chunks))
def test_any_order_and_a_restart_at_any_chunk_end_in_the_same_whole(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], killed_at: int
) -> None:
    """After every chunk the hash is of the chunks from the first on, and of no other."""
    files = BlobFiles(tmp_path_factory.mktemp("blobs"))
    for some in (order[:killed_at], order[killed_at:]):
        part = files.open(REF)
        with part.file:
            for index in some:
                files.write(part, index, CHUNKS[index])
                assert part.digest.digest() == sha256(b"".join(CHUNKS[: part.hashed])).digest()
    part = files.open(REF)
    with part.file:
        files.finish(part)
    assert files.path(REF.sha256).read_bytes() == DATA


def test_chunks_damaged_on_the_disk_are_not_had(tmp_path: Path) -> None:
    """What a power cut left half written is fetched again; the chunks behind it are read, not fetched."""
    files = BlobFiles(tmp_path)
    part = files.open(REF)
    with part.file:
        for index, chunk in enumerate(CHUNKS):
            files.write(part, index, chunk if index != 3 else bytes(len(chunk)))
    part = files.open(REF)
    with part.file:
        assert (part.have, part.hashed) == (set(range(REF.chunks)) - {3}, 3)
        files.write(part, 3, CHUNKS[3])
        assert part.hashed == REF.chunks
        files.finish(part)
    assert files.path(REF.sha256).read_bytes() == DATA


def test_a_chunk_that_changed_on_the_disk_while_it_waited_for_its_turn_is_found(tmp_path: Path) -> None:
    """Chunks that came out of turn are hashed as the disk gives them back, and a wrong whole gets no name."""
    files = BlobFiles(tmp_path)
    part = files.open(REF)
    with part.file:
        for index in range(1, REF.chunks):
            files.write(part, index, CHUNKS[index])
        (tmp_path / REF.sha256 / "part").write_bytes(bytes(REF.size))
        files.write(part, 0, CHUNKS[0])
        with pytest.raises(DigestError, match="although its chunks do"):
            files.finish(part)
    assert not files.path(REF.sha256).exists()


def test_a_part_that_is_too_long_is_cut(tmp_path: Path) -> None:
    """Only chunks of this blob count, and nothing is left behind its end."""
    files = BlobFiles(tmp_path)
    (tmp_path / REF.sha256).mkdir()
    (tmp_path / REF.sha256 / "part").write_bytes(DATA[:4000] + bytes(20_000))
    part = files.open(REF)
    with part.file:
        assert part.have == {0, 1, 2, 3}
        for index in range(4, REF.chunks):
            files.write(part, index, CHUNKS[index])
        files.finish(part)
    assert files.path(REF.sha256).read_bytes() == DATA
