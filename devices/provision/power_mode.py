"""Setting NVIDIA's power mode by its name: a script for the board's shell, and the unit that runs it. Pure.

Numbers of modes differ between boards, and between firmwares of one board: 0 is MAXN on AGX Orin, 15W on Orin Nano. So
the number is looked up on the board, each time. Some modes take a reboot: the script says so and reboots nothing.
"""

from __future__ import annotations

from typing import Final

POWER_UNIT: Final = "roadcast-power.service"
POWER_SCRIPT: Final = r"""# Sets NVIDIA's power mode by its name: numbers differ between boards.
# sh power-mode.sh NAME [nvpmodel.conf]
set -eu
wanted=$1 conf=${2:-/etc/nvpmodel.conf}

mode() {
  nvpmodel -q 2>/dev/null </dev/null | sed -n 's/^.*NV Power Mode: *//p' | head -n 1
}

command -v nvpmodel >/dev/null || {
  echo "there is no nvpmodel on this board: leave power_mode out of its site" >&2
  exit 1
}
[ "$(mode)" != "$wanted" ] || exit 0
offered=$(sed -n 's/^[[:space:]]*<[[:space:]]*POWER_MODEL[[:space:]]\(.*\)>.*/ \1 /p' "$conf")
number=$(printf '%s\n' "$offered" | grep -F " NAME=$wanted " | sed -n 's/.* ID=\([0-9][0-9]*\) .*/\1/p' | head -n 1)
[ -n "$number" ] || {
  echo "no power mode $wanted here; there are:" $(printf '%s\n' "$offered" | sed -n 's/.* NAME=\([^ ]*\) .*/\1/p') >&2
  exit 1
}
nvpmodel -m "$number" </dev/null >&2 || true # it asks before it reboots, and nobody answers
[ "$(mode)" = "$wanted" ] || {
  echo "power mode $wanted takes a reboot here; run once: sudo nvpmodel -m $number" >&2
  exit 1
}
"""


def power_unit(mode: str, script: str, agent: str) -> str:
    """Set the power mode at every boot, after NVIDIA's own service has set the last one, before the agent starts."""
    return f"""[Unit]
Description=Set the power mode to {mode}
After=nvpmodel.service
Before={agent}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {script} {mode}
TimeoutStartSec=60

[Install]
WantedBy=multi-user.target
"""
