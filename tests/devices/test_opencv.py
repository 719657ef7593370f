"""OpenCV is loaded when needed, and its absence is explained."""

from __future__ import annotations

import sys

import pytest

from devices.opencv import opencv
from edge_protocol.errors import NotReadyError


def test_opencv_is_loaded_on_demand() -> None:
    """The module that is returned is OpenCV."""
    assert opencv().__name__ == "cv2"


def test_missing_opencv_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenCV is absent, the message names the package."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(NotReadyError, match="install opencv-python-headless, or the board's own"):
        opencv()
