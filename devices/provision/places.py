"""Where things lie on a device."""

from __future__ import annotations

from typing import Final

STATE_DIR: Final = "/var/lib/roadcast"
CONFIG_DIR: Final = "/etc/roadcast"
FACTORY_DIR: Final = "/usr/lib/roadcast/factory"
NO_STATE: Final = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108  # refused
"""Folders that the agent's unit does not see as they are (ProtectHome, PrivateTmp), or that lie in memory."""
