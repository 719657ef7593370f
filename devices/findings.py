"""What a check says: one line, ok, warn or fail, with a fix to copy. Owns no check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

Level: TypeAlias = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """The answer of one check.

    Attributes:
        check: what was checked, such as ``clock``.
        level: ``fail`` when the device cannot do its work like this; ``warn`` when it can, but not well or not long.
        says: what was found, in one line.
        fix: a command or an act that mends it; empty when there is nothing to do.
        safe: `fix` is one command that may be run as it stands: it destroys nothing and can be taken back.
    """

    check: str
    level: Level
    says: str
    fix: str = ""
    safe: bool = False


def worst(findings: Iterable[Finding]) -> Level:
    """The gravest level among them; ok without any."""
    levels = {finding.level for finding in findings}
    return "fail" if "fail" in levels else "warn" if "warn" in levels else "ok"
