"""OpenCV, loaded when first needed: a module that only plans must import where OpenCV is absent."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edge_protocol.errors import NotReadyError


def opencv() -> Any:  # noqa: ANN401 - OpenCV's own annotations differ from build to build
    """The `cv2` module, the board's own build or the wheel.

    Raises:
        NotReadyError: there is none.
    """
    try:
        return import_module("cv2")
    except ImportError as error:
        raise NotReadyError(
            f"OpenCV cannot be loaded ({error}); install opencv-python-headless, or the board's own python3-opencv"
        ) from error
