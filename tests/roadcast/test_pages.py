"""The pages that we write, in a real browser: nothing is cut off, at the width of a desk and of a telephone."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from roadcast.bench.report import page
from roadcast.demo.report import write_report
from tests.fakes.demo_outcome import good
from tests.fakes.latency import result
from tests.roadcast.bench.test_report import EVEN, MOMENTS, soaked

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
_LOOK = """<script>
const cut = [...document.querySelectorAll("svg")].flatMap(chart => {
  const frame = chart.getBoundingClientRect();
  return [...chart.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
});
if (document.documentElement.scrollWidth > innerWidth) cut.push("the page is wider than the window");
document.title = cut.length ? cut.join("|") : "all is seen";
</script>"""


def cut_off(path: Path, width: int) -> str:
    """Texts of charts that do not fit, as a browser lays the page out."""
    path.write_text(path.read_text().replace("</body>", f"{_LOOK}</body>"))
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={path.parent / 'profile'}",
        f"--window-size={width},1200",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=90)
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    return html.unescape(title[1])


@pytest.mark.parametrize("width", [1300, 500])
def test_nothing_of_a_latency_report_is_cut_off(tmp_path: Path, width: int) -> None:
    """Two runs with long names of which one was watched, a single one, and a soak alone."""
    watched = result(EVEN[:500], moments=MOMENTS)
    for name, found in (("two", [result(EVEN), watched]), ("one", [watched]), ("soak", [soaked()])):
        (tmp_path / f"{name}.html").write_text(page(found))
        assert cut_off(tmp_path / f"{name}.html", width) == "all is seen"


@pytest.mark.parametrize("width", [1300, 500])
def test_nothing_of_a_demo_report_is_cut_off(tmp_path: Path, width: int) -> None:
    """Every chart of a whole demo."""
    write_report(tmp_path / "demo.html", good())
    assert cut_off(tmp_path / "demo.html", width) == "all is seen"
