"""Boards and their parts: sources, preprocessing, runners."""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime 1.31 keeps an identifier and reports to its maker
