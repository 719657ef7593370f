"""What an earlier plan put onto a device and this one does not want any more: from a list that lies there. Pure.

Every plan brings the list of its own paths; whoever carries out the next one takes away what only the old list names.
A device that was installed before there were lists has none, and keeps everything.
"""

from __future__ import annotations

from typing import Final

from devices.provision.changes import parents
from devices.provision.plan import INSTALLED, Plan

_MOST: Final = 65536
"""A longer list is not ours, or cannot be read back from a target."""


def named(listed: bytes | None) -> frozenset[str]:
    """The paths that a list names; of what is no list, and of lines that are no path below the root, none."""
    try:
        lines = listed.decode().splitlines() if listed is not None and len(listed) <= _MOST else []
    except UnicodeDecodeError:
        lines = []
    return frozenset(line for line in lines if _is_path(line))


def left_over(plan: Plan, listed: bytes | None) -> tuple[str, ...]:
    """Paths to take away: files and links, then the folders that were theirs alone, which end with a slash.

    Args:
        plan: that is carried out.
        listed: the list on the device; None when there is none.
    """
    wanted = {file.path for file in plan.files} | {link.path for link in plan.links}
    if INSTALLED not in wanted:
        return ()
    above = {f"{folder}/" for path in wanted for folder in parents(path)}
    stale = named(listed) - wanted - above
    return tuple(sorted(stale, key=lambda path: (path.endswith("/"), path)))


def _is_path(line: str) -> bool:
    top, *parts = line.removesuffix("/").split("/")
    return line.isprintable() and not top and bool(parts) and not {"", ".", ".."} & set(parts)
