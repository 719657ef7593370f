"""Where things lie on a device."""

from __future__ import annotations

from typing import Final

STATE_DIR: Final = "/var/lib/roadcast"
CONFIG_DIR: Final = "/etc/roadcast"
FACTORY_DIR: Final = "/usr/lib/roadcast/factory"
