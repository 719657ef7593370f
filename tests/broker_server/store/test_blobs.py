"""The blob folder: whole or not at all, and checked on the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.store.blobs import BlobFolder
from edge_protocol.blobs import cut
from edge_protocol.errors import DigestError, StoreError

DATA = bytes(range(256)) * 4


def test_a_blob_comes_back_whole_and_in_chunks(tmp_path: Path) -> None:
    """Chunks put together are the blob, and putting it again changes nothing."""
    blobs = BlobFolder(tmp_path / "a" / "b")
    ref = blobs.put(DATA, 100)
    assert blobs.put(DATA, 100) == ref
    assert blobs.read(ref) == DATA
    assert b"".join(blobs.chunk(ref, i) for i in range(ref.chunks)) == DATA
    assert [p.name for p in blobs.root.iterdir()] == [ref.sha256]


def test_damage_is_found(tmp_path: Path) -> None:
    """A changed byte, an index too high, and a missing file are all refused."""
    blobs = BlobFolder(tmp_path)
    ref = blobs.put(DATA, 100)
    (tmp_path / ref.sha256).write_bytes(b"\xff" + DATA[1:])
    with pytest.raises(DigestError, match="damaged"):
        blobs.read(ref)
    with pytest.raises(DigestError):
        blobs.chunk(ref, 0)
    with pytest.raises(DigestError, match="no chunk"):
        blobs.chunk(ref, ref.chunks)
    missing, _ = cut(b"missing")
    with pytest.raises(StoreError, match=missing.sha256[:12]):
        blobs.read(missing)
    with pytest.raises(StoreError):
        blobs.chunk(missing, 0)


def test_a_blob_cut_short_by_a_crash_is_written_again(tmp_path: Path) -> None:
    """A file of another size under the right name is replaced."""
    blobs = BlobFolder(tmp_path)
    ref = blobs.put(DATA)
    (tmp_path / ref.sha256).write_bytes(DATA[:10])
    assert blobs.read(blobs.put(DATA)) == DATA


def test_a_blob_with_a_changed_byte_is_written_again(tmp_path: Path) -> None:
    """Pushing a release again mends it, as the error of reading it says."""
    blobs = BlobFolder(tmp_path)
    ref = blobs.put(b"weights")
    (tmp_path / ref.sha256).write_bytes(b"weighty")
    assert blobs.put(b"weights") == ref
    assert blobs.read(ref) == b"weights"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is a StoreError."""
    (tmp_path / "blobs").write_bytes(b"")
    with pytest.raises(StoreError, match="blobs"):
        BlobFolder(tmp_path / "blobs")
