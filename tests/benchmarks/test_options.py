"""Every benchmark starts as it is called in the documents: with no option at all."""

from __future__ import annotations

import argparse
import re
import runpy
from pathlib import Path

import pytest

from benchmarks import harness

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted(
    path
    for path in (ROOT / "benchmarks").rglob("*.py")
    if re.search(r"(?m)^    raise SystemExit\(\s*run\(", path.read_text())
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_stands_without_an_option_is_something_it_reads(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that its own reader refuses stops a benchmark before it measures anything."""
    begun: list[dict[str, harness.Own]] = []

    def run(measure: object, **own: harness.Own) -> int:
        """Measure nothing."""
        assert callable(measure)
        begun.append(own)
        return 0

    monkeypatch.setattr(harness, "run", run)
    with pytest.raises(SystemExit):
        runpy.run_path(str(script), run_name="__main__")
    (own,) = begun
    parser = argparse.ArgumentParser(exit_on_error=False)
    for option, each in own.items():
        each.join(parser, option)
    assert vars(parser.parse_args([])).keys() == own.keys()
