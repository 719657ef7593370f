"""CSV sources: gaps, growing files, and lines that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.sources import open_source
from devices.sources.base import Frame, Pace
from devices.sources.table import TableSource, parse_row, parse_time
from edge_protocol.errors import SourceError

HEADER = "time,a,b\n"


def source(path: Path, *, follow: bool = True, loop: bool = False) -> TableSource:
    """The file as a source."""
    return TableSource(path, name="s", pace=Pace(None), loop=loop, follow=follow)


def readings(frame: Frame | None) -> list[float]:
    """The readings of a frame that must be there."""
    assert frame is not None
    assert frame.readings is not None
    return [float(value) for value in frame.readings]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A file with two rows, one of them with a gap."""
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "1000,1.5,2\n2026-03-02T00:00:00Z,,4\n")
    return path


def test_rows_with_gaps(log: Path) -> None:
    """Rows carry their own time; an empty cell is missing, never 0."""
    with open_source(f"csv://{log}?follow=false", name="s") as opened:
        first, second = opened.read(1), opened.read(1)
        assert opened.read(0.01) is None
        assert opened.ended
        assert opened.read(0.01) is None
    assert readings(first) == [1.5, 2.0]
    np.testing.assert_array_equal(readings(second), [np.nan, 4])
    assert first is not None
    assert second is not None
    assert (first.at_s, second.at_s, second.sample) == (1000.0, 1772409600.0, "s-1772409600")


def test_a_growing_file(log: Path) -> None:
    """A row is delivered once its line is complete, and the source waits for more."""
    with source(log) as opened:
        assert opened.sensors == ("a", "b")
        assert [opened.read(0.1) is not None for _ in range(3)] == [True, True, False]
        with log.open("a") as file:
            file.write("2000,5,")
            file.flush()
            assert opened.read(0.01) is None
            file.write("6\n")
            file.flush()
            assert readings(opened.read(1)) == [5, 6]
        assert not opened.ended
        assert opened.read(0) is None


def test_a_file_that_begins_anew(log: Path) -> None:
    """A logger that replaces or empties its file is followed."""
    with source(log) as opened:
        assert [opened.read(0.1) is not None for _ in range(3)] == [True, True, False]
        log.unlink()
        assert opened.read(0.01) is None
        log.write_text(HEADER + "3000,7,8\n")
        assert readings(opened.read(5)) == [7, 8]
        log.write_text(HEADER + "4,9,9\n")
        assert readings(opened.read(5)) == [9, 9]
        log.write_text("garbage\n")
        with pytest.raises(SourceError, match="first line must name"):
            opened.read(1)


def test_wrong_lines_are_counted(tmp_path: Path) -> None:
    """Short lines, words, infinities and bytes that are no text are skipped and counted, and the last line counts."""
    path = tmp_path / "log.csv"
    bad = b"1000,1\n1001,one,2\nnever,1,2\ninf,1,2\n1002,inf,2\n\xff\xfe,1,2\n\n"
    path.write_bytes(HEADER.encode() + bad + b"1003,1,2")
    with source(path, follow=False) as opened:
        assert readings(opened.read(1)) == [1, 2]
        assert opened.rejected == 7
        assert opened.read(0.01) is None
        assert opened.ended


def test_loop(log: Path) -> None:
    """A looped file begins again; one without a good row ends instead of spinning."""
    with source(log, loop=True, follow=False) as opened:
        assert [readings(opened.read(1))[1] for _ in range(4)] == [2, 4, 2, 4]
    log.write_text(HEADER + "bad\n")
    with source(log, loop=True, follow=False) as opened:
        assert opened.read(0.01) is None
        assert opened.ended


@pytest.mark.parametrize("text", ["", "time\n", "\xff"])
def test_no_header(tmp_path: Path, text: str) -> None:
    """A file without a header is refused when it is opened."""
    (tmp_path / "log.csv").write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match="first line must name a time column"):
        source(tmp_path / "log.csv")


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is named."""
    with pytest.raises(SourceError, match=r"nope\.csv: cannot be read"):
        source(tmp_path / "nope.csv")


def test_parsing() -> None:
    """Numbers and ISO times with and without a zone are times; the rest is refused."""
    assert parse_time("1.5") == 1.5
    assert parse_time("2026-03-02 01:00:00+01:00") == parse_time("2026-03-02T00:00:00") == 1772409600.0
    for text in ("", "nan", "yesterday"):
        with pytest.raises(ValueError, match=r".+"):
            parse_time(text)
    at_s, values = parse_row(["1", " ", "2"], 2)
    assert at_s == 1
    np.testing.assert_array_equal(values, np.array([np.nan, 2], np.float32))
