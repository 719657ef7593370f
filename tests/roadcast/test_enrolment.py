"""What the commands that get and renew certificates say."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_protocol.errors import ConfigError
from roadcast.enrolment import renew
from tests.fakes.authority import certified, make_authority


def test_a_certificate_of_the_name_before_is_not_told_as_this_one_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A board that was given another name holds the old one's identity until it enrols anew."""
    files = certified(make_authority(tmp_path / "ca"), tmp_path / "cam", "cam-1", time.time())
    renew(files, "cam-1", force=False, json=False)
    assert capsys.readouterr().out.startswith("cam-1: certified until ")
    with pytest.raises(ConfigError, match="is of 'cam-1', this is 'cam-2'; enrol"):
        renew(files, "cam-2", force=False, json=False)
