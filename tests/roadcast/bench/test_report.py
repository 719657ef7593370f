"""The page and the plot hold everything they need and nothing that was not measured."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import msgspec

from devices.latency.result import summarise
from devices.latency.sensors import Moment, Sensed
from devices.latency.soak import Soak, window_of
from roadcast.bench.charts import plot
from roadcast.bench.report import page
from tests.fakes.latency import SUBJECT, result

EVEN = [1_000_000 + 10 * at for at in range(1000)]

MOMENTS = tuple(Moment(float(at), 50.0 + at, 1500.0 - at, 900.0) for at in range(4))


def soaked() -> Soak:
    """A minute without a sensor of heat."""
    summary = summarise(EVEN)
    windows = (window_of(summary, 5.0 * at, clock_mhz=1500.0, memory_mb=80.0) for at in range(1, 13))
    return Soak(subject=SUBJECT, samples=1, windows=tuple(windows), findings=("slower: p50 went from 1 to 2 ms",))


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


def test_heat_and_clocks_are_drawn_where_they_were_measured() -> None:
    """One board of two has sensors: a line of its own, and who was not measured is named; without any it says so."""
    html = page([result(EVEN), result(EVEN, moments=MOMENTS, power_mode="MAXN_SUPER")])
    assert html.count("<svg") == 5
    heat = html.split("<h2>Temperature</h2>")[1].split("</article>")[0]
    assert "<polyline" in heat
    assert "not measured: #1</p>" in heat
    clocks = html.split("<h2>Clocks</h2>")[1].split("</article>")[0]
    assert ">#2 cores<" in clocks
    assert ">#2 GPU<" in clocks
    alone = page([result(EVEN)])
    assert alone.split("<h2>Temperature</h2>")[1].split("</article>")[0].count("not measured") == 1


def test_conditions_say_what_the_board_was_like() -> None:
    """Clocks and whether they were pinned, power mode, heat, throttling; a board that has none says so of each."""
    sensed = Sensed(None, (1500.0, 1440.0), 0.04, False, 3, (50.0, 57.5), ("gpu",))
    html = page([result(EVEN), result(EVEN, sensed=sensed, power_mode="MAXN_SUPER")])
    rows = cells(html.split("<h2>Conditions</h2>")[1].split("</article>")[0])
    assert rows[3:8] == ["not measured; pinned: not measured", *["not measured"] * 4]
    assert rows[11:15] == ["1500 to 1440 MHz; pinned: no", "MAXN_SUPER", "57.5 °C", "yes, 3 times, gpu"]


def test_a_stage_without_times_says_why() -> None:
    """No zero for what was not measured; what ran beside the stages is told and not added."""
    found = result(EVEN, notes={"infer": "a note", "capture": "no camera"})
    found = msgspec.structs.replace(found, beside={"decode": found.latency}, unmeasured={"capture": "no camera"})
    rows = cells(page([found]).split("<h2>Stages</h2>")[1].split("</article>")[0])
    table = [rows[at + 1 : at + 5] for at in range(0, len(rows), 5)]
    assert ["capture", "no camera", "not measured", ""] in table
    assert [row[0] for row in table[:4]] == ["capture", "decode (not added to the latency)", "preprocess", "infer"]
    assert table[3][1:] == ["a note", "1.005", "1.01"]


def test_soaks_are_drawn_beside_runs_or_alone() -> None:
    """Charts of what was watched; heat that was not is said to be so."""
    assert page([result(EVEN), soaked()]).count("<svg") == 3 + 3
    html = page([soaked()])
    assert "Conditions" not in html
    assert '<h3>hottest zone, °C</h3><p class="empty">not measured</p>' in html
    assert "slower: p50" in html


def test_a_stall_does_not_hide_the_distribution() -> None:
    """From 1 to 2 ms, but for one of 100 ms: the others still take a twentieth of the width and more."""
    tree = ET.fromstring(plot(result([*(1_000_000 + 1000 * (at * 7 % 1000) for at in range(1000)), 100_000_000])))
    line = tree.find("{*}polyline")
    assert line is not None
    across = [float(point.partition(",")[0]) for point in line.attrib["points"].split()]
    assert across[-2] - across[0] > 0.05 * (across[-1] - across[0])
    assert {"1", "10", "100"} <= {each.text for each in tree.findall("{*}text")}


def test_a_plot_is_an_svg_file_of_its_own() -> None:
    """It parses as XML, carries its style, and its line ends where every query is answered."""
    tree = ET.fromstring(plot(result(EVEN)))
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert tree.find("{*}style") is not None
    line = tree.find("{*}polyline")
    assert line is not None
    heights = [float(point.partition(",")[2]) for point in line.attrib["points"].split()]
    assert heights == sorted(heights, reverse=True)
