"""The page and the plot hold everything they need and nothing that was not measured."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec

from roadcast.bench.report import page, plot
from tests.fakes.latency import SUBJECT, result

EVEN = [1_000_000 + 10 * at for at in range(1000)]


class Cells(HTMLParser):
    """Collects the text of table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A cell begins."""
        self._inside = tag == "td"
        if self._inside:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        """Text of a cell."""
        if self._inside:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        """A cell ends."""
        if tag == "td":
            self._inside = False


def cells(html: str) -> list[str]:
    """Texts of all table cells."""
    parser = Cells()
    parser.feed(html)
    return parser.cells


def test_a_page_needs_nothing_from_elsewhere() -> None:
    """No link, script, image or font; text is escaped."""
    odd = msgspec.structs.replace(SUBJECT, model="<b>&", board='"board"')
    html = page([result(EVEN, subject=odd)])
    assert not re.search(r"(?i)\bsrc=|href=|<script|@import|url\(", html)
    assert "<b>&," not in html
    assert "&lt;b&gt;&amp;" in html


def test_the_map_has_a_cell_for_each_model_and_board() -> None:
    """Two models on two boards of which one pair was not measured: three values and a dash."""
    other = msgspec.structs.replace(SUBJECT, model="speed nano mlp")
    boards = [msgspec.structs.replace(SUBJECT, board="another"), SUBJECT, other]
    html = page([result([(at + 1) * 1_000_000] * 1000, subject=one) for at, one in enumerate(boards)])
    assert cells(html.split("Model by device")[1]) == [
        "vehicle nano depthwise, fp32, single-stream",
        "1",
        "2",
        "speed nano mlp, fp32, single-stream",
        "-",
        "3",
    ]


def test_every_run_has_its_row_and_its_remarks() -> None:
    """Two runs of the same name are told apart; what was not measured is a dash; a short run is remarked upon."""
    html = page([result(EVEN), result(EVEN[:500], peak_mb=None)])
    rows = cells(html.split("To be taken with care")[0])
    assert rows[0].startswith("#1 ")
    assert rows[12].startswith("#2 ")
    assert rows[2] == "1000"
    assert rows[12 + 6] == "-"
    assert rows[12 + 9] == "-"
    assert html.count("<svg") == 3


def test_a_plot_is_an_svg_file_of_its_own() -> None:
    """It parses as XML, carries its style, and its line ends where every query is answered."""
    tree = ET.fromstring(plot(result(EVEN)))
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert tree.find("{*}style") is not None
    line = tree.find("{*}polyline")
    assert line is not None
    heights = [float(point.partition(",")[2]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights, reverse=True)
