"""Partition tables: what sfdisk wrote is read, and what is damaged is refused."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.provision.filesystems import identify
from devices.provision.partitions import Table, read_table
from edge_protocol.errors import DataError
from tests.fakes import images
from tests.fakes.images import MIB, tool

needs_tools = pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)
LOGICAL = "label: dos\nsize=1MiB,type=c\nsize=2MiB\nsize=6MiB,type=5\nsize=1MiB\nsize=2MiB,type=7\nsize=1MiB,type=82\n"
JETSON = 'label: gpt\nfirst-lba: 34\nsize=4MiB,name=APP\nsize=64KiB,name="A_kernel"\nsize=1MiB,type=U,name=esp\n'


def _read(content: bytes, size: int | None = None) -> Table:
    return read_table(lambda at, count: content[at : at + count], len(content) if size is None else size)


def _image(path: Path, script: str) -> bytes:
    path.write_bytes(bytes(12 * MIB))
    tool("sfdisk", "-q", str(path), given=script.encode())
    return path.read_bytes()


@needs_tools
@pytest.mark.parametrize("script", [LOGICAL, JETSON])
def test_what_sfdisk_wrote_is_read(script: str, tmp_path: Path) -> None:
    """Numbers, places, types and names agree with sfdisk's own reading, logical partitions included."""
    content = _image(tmp_path / "x.img", script)
    wanted = json.loads(tool("sfdisk", "-J", str(tmp_path / "x.img")))["partitiontable"]["partitions"]
    found = {part.number: part for part in _read(content).partitions}
    assert len(found) >= 3
    for one in wanted:
        part = found.pop(int(one["node"].removeprefix(str(tmp_path / "x.img"))), None)
        if part is None:
            assert one["type"] == "5"  # the frame of the logical ones is no place for files
            continue
        assert (part.start, part.size, part.name) == (one["start"] * 512, one["size"] * 512, one.get("name", ""))
        assert part.kind == one["type"].lower().rjust(2, "0")
    assert not found


@needs_tools
def test_an_image_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """A download that ended early, or an archive that was not unpacked to its end."""
    content = _image(tmp_path / "x.img", JETSON)
    with pytest.raises(DataError, match="cut off"):
        _read(content, 3 * MIB)


@needs_tools
@pytest.mark.parametrize("at", [512 + 16, 512 + 40, 512 + 80, 1024 + 3, 1024 + 40])
def test_a_damaged_gpt_is_refused(at: int, tmp_path: Path) -> None:
    """A bit in the header or in an entry that the checksums cover is found, whatever it means."""
    content = bytearray(_image(tmp_path / "x.img", JETSON))
    content[at] ^= 4
    with pytest.raises(DataError, match="damaged"):
        _read(bytes(content))


@needs_tools
def test_partitions_that_overlap_are_refused(tmp_path: Path) -> None:
    """The second one is moved into the first; MBR has no checksum that would tell."""
    content = bytearray(_image(tmp_path / "x.img", LOGICAL))
    content[446 + 16 + 8 : 446 + 16 + 12] = content[446 + 8 : 446 + 12]
    with pytest.raises(DataError, match="overlap"):
        _read(bytes(content))


@needs_tools
def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    """An extended boot record that names itself as the next one."""
    content = bytearray(_image(tmp_path / "x.img", LOGICAL))
    base = int.from_bytes(content[446 + 32 + 8 : 446 + 32 + 12], "little")
    second = base + int.from_bytes(content[base * 512 + 470 : base * 512 + 474], "little")
    assert content[second * 512 + 510 : second * 512 + 512] == b"\x55\xaa"
    content[second * 512 + 466] = 0x05
    content[second * 512 + 470 : second * 512 + 474] = (second - base).to_bytes(4, "little")
    with pytest.raises(DataError, match="damaged"):
        _read(bytes(content))


def test_a_file_without_a_table_is_one_partition() -> None:
    """The image of a bare filesystem, or nothing at all."""
    for content in (b"", bytes(4096)):
        (part,) = _read(content).partitions
        assert (part.number, part.start, part.size) == (0, 0, len(content))


_DAMAGE = st.lists(st.tuples(st.integers(0, 2047), st.integers(0, 255)), max_size=12)


@settings(max_examples=200)
@given(damage=_DAMAGE, gpt=st.booleans())
def test_no_table_makes_the_reader_stumble(damage: list[tuple[int, int]], gpt: bool) -> None:
    """Whatever a sector holds, it is a table within the image or a `DataError`, and soon."""
    content = bytearray(4096)
    content[510:512] = b"\x55\xaa"
    content[450] = 0xEE if gpt else 0x05
    content[454] = 1
    content[512:520] = b"EFI PART" if gpt else bytes(8)
    for at, value in damage:
        content[at] = value
    with suppress(DataError):
        for part in _read(bytes(content)).partitions:
            assert 0 <= part.start <= part.start + part.size <= len(content)


@given(content=st.binary(max_size=2048))
def test_no_content_makes_the_identification_stumble(content: bytes) -> None:
    """Bytes that are no filesystem are called unknown, or by the name whose magic they bear."""
    assert identify(lambda at, count: content[at : at + count], 0).kind
