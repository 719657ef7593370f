"""What carrying out a plan changes on a device, said the same way whoever carries it out. Pure."""

from __future__ import annotations

import difflib
import stat
from typing import Literal

import msgspec

from devices.provision.plan import Plan, PlannedFile
from edge_protocol.errors import ConfigError


class Change(msgspec.Struct, frozen=True):
    """What a plan changes at one path.

    Attributes:
        path: on the device.
        action: ``add`` what is not there, ``change`` what is different, ``keep`` what is right, or ``remove`` what an
            earlier plan left.
        diff: unified, for text that is not secret; empty otherwise.
    """

    path: str
    action: Literal["add", "change", "keep", "remove"]
    diff: str = ""


def check_paths(plan: Plan) -> None:
    """Refuse a plan with a path that would leave the tree.

    Raises:
        ConfigError: a path is relative, has '.', '..' or nothing between slashes, or names no file.
    """
    for path in [*(file.path for file in plan.files), *(link.path for link in plan.links)]:
        top, *parts = path.split("/")
        if top or not parts or {"", ".", ".."} & set(parts):
            raise ConfigError(f"plan: {path!r} is no file below the tree")


def parents(path: str) -> list[str]:
    """The folders above an absolute path, from the root down."""
    parts = path.split("/")[1:-1]
    return ["/", *("/" + "/".join(parts[: count + 1]) for count in range(len(parts)))]


def is_secret(file: PlannedFile) -> bool:
    """Whether not everybody may read a file: its content is never shown."""
    return file.mode & stat.S_IROTH == 0


def diff_of(file: PlannedFile, before: bytes | None) -> str:
    """What is different in a text file; empty for a secret, and for what is no text."""
    if is_secret(file):
        return ""
    try:
        old, new = (before or b"").decode().splitlines(), file.content.decode().splitlines()
    except UnicodeDecodeError:
        return ""
    return "\n".join(difflib.unified_diff(old, new, "on the device", "in the plan", lineterm=""))
