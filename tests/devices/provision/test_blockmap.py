"""Block maps: bmaptool's are read, and what is damaged, old or another image's is refused."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.provision.blockmap import Span, read_block_map
from edge_protocol.errors import DataError
from tests.fakes.images import block_map, tool

IMAGE = bytes(8192) + b"x" * 5000 + bytes(20_000)
SPANS = ((0, 1), (2, 3), (8, 8))


def test_a_block_map_names_spans_in_bytes() -> None:
    """The last block ends where the image does."""
    found = read_block_map(block_map(IMAGE, SPANS), len(IMAGE))
    assert [(span.start, span.size) for span in found] == [(0, 8192), (8192, 8192), (32768, len(IMAGE) - 32768)]
    assert found[1] == Span(8192, 8192, sha256(IMAGE[8192:16384]).hexdigest())


@pytest.mark.skipif(shutil.which("bmaptool") is None, reason="no bmaptool here: apt-get install bmap-tools")
def test_bmaptool_s_own_are_read(tmp_path: Path) -> None:
    """A sparse file, mapped by bmaptool: every byte that is not zero is in a span, and the hashes are right."""
    image = tmp_path / "x.img"
    with image.open("wb") as file:
        file.truncate((1 << 22) + 100)
        for at in (0, 1 << 20, (1 << 22) + 90):
            file.seek(at)
            file.write(b"data")
    tool("bmaptool", "create", str(image), "-o", str(tmp_path / "x.bmap"))
    content = image.read_bytes()
    rest = bytearray(content)
    for span in read_block_map((tmp_path / "x.bmap").read_bytes(), len(content)):
        piece = content[span.start : span.start + span.size]
        assert sha256(piece).hexdigest() == span.sha256
        rest[span.start : span.start + span.size] = bytes(len(piece))
    assert not any(rest)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (r"<BlockSize> 4096", "<BlockSize> 8192", "own checksum"),
        (r'version="2\.0"', 'version="1.2"', "version"),
        (r"sha256", "sha1", "SHA-256"),
        (r"^", '<!DOCTYPE x [<!ENTITY a "aaaa">]>', "document type"),
        (r"</BlockMap>", "", "no XML"),
    ],
)
def test_what_was_changed_is_refused(old: str, new: str, says: str) -> None:
    """A field, the version, the kind of hash, entities, a tag."""
    text = re.sub(old, new, block_map(IMAGE, SPANS).decode(), count=1)
    with pytest.raises(DataError, match=says):
        read_block_map(text.encode(), len(IMAGE))


@pytest.mark.parametrize("spans", [(), ((2, 1),), ((0, 3), (2, 4)), ((4, 4), (0, 0)), ((0, 9),)])
def test_ranges_that_make_no_sense_are_refused(spans: tuple[tuple[int, int], ...]) -> None:
    """None at all, backwards, overlapping, out of order, beyond the image; with a checksum that is right."""
    with pytest.raises(DataError):
        read_block_map(block_map(IMAGE, spans), len(IMAGE))


def test_another_image_s_is_refused() -> None:
    """By its size, before a byte is written."""
    with pytest.raises(DataError, match="and this one has"):
        read_block_map(block_map(IMAGE, SPANS), len(IMAGE) + 1)


@given(cut=st.integers(0, 900), junk=st.binary(max_size=40))
def test_no_text_makes_the_reader_stumble(cut: int, junk: bytes) -> None:
    """Whatever comes, it is spans or a `DataError`."""
    with suppress(DataError):
        assert read_block_map(block_map(IMAGE, SPANS)[:cut] + junk, len(IMAGE))
