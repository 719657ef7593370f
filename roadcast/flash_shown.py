"""What `roadcast flash` shows of its results, as text or tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devices.provision.changes import Change
from devices.provision.writing import Written
from roadcast.output import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from roadcast.maker_flash import Handed
    from roadcast.ssh_fleet import Flashed
    from roadcast.wheelhouse import Wheelhouse


def written(done: Written) -> str:
    """What lies on a disk, in a line."""
    if not done.bytes:
        return f"{done.disk} would be written over with an image of {done.image_bytes} bytes"
    mapped = " (what its block map names)" if done.block_map else ""
    return f"{done.bytes} of {done.image_bytes} bytes{mapped} written to {done.disk} and read back"


def wheelhouse(filled: Wheelhouse) -> RenderableType:
    """Every wheel, and where those that use the GPU come from."""
    size, target = sum(filled.wheels.values()) / 1e6, filled.target
    rows = [(name, f"{count / 1e6:.1f}") for name, count in filled.wheels.items()]
    title = f"{len(rows)} wheels, {size:.1f} MB, for Python {target.python} and glibc {target.glibc} or newer"
    gpu = f"GPU: {target.gpu}. Put such a wheel into {filled.folder} and run this again.\n" if target.gpu else ""
    return _below(gpu, table(title, ("wheel", "MB"), rows))


def handed(to: Handed) -> RenderableType:
    """What was looked at before NVIDIA's tool, and the tool."""
    rows = [(one.level, one.check, one.says, one.fix or None) for one in to.findings]
    wrong = sum(change.action != "keep" for change in to.changes)
    said = f"{wrong} files of the tree written; {'ran' if to.done else 'would run'}: {to.command}\n"
    return _below(said, table("before the board is flashed", ("", "check", "found", "fix"), rows))


def changed(changes: tuple[Change, ...]) -> RenderableType:
    """What differed, and how many files did not."""
    diffs = _diffs(changes)
    kept = sum(change.action == "keep" for change in changes)
    rows = [(change.action, change.path) for change in changes if change.action != "keep"]
    return _below(diffs, table(f"{len(rows)} to change, {kept} right already", ("action", "path"), rows))


def fleet(flashed: list[Flashed]) -> RenderableType:
    """A line for each device; in a dry run what would change on each."""
    from roadcast.ssh_fleet import summary

    title, rows = summary(flashed)
    planned = [one for one in flashed if one.outcome == "planned"]
    shown = "".join(
        f"{one.device}\n{_diffs(one.changes)}"
        + "".join(f"{change.action}\t{change.path}\n" for change in one.changes if change.action != "keep")
        for one in planned
    )
    return _below(shown, table(title, ("device", "host", "outcome", "writes", "error"), rows))


def _diffs(changes: tuple[Change, ...]) -> str:
    return "".join(f"{change.path}\n{change.diff}\n\n" for change in changes if change.diff)


def _below(text: str, listed: RenderableType) -> RenderableType:
    if isinstance(listed, str):
        return f"{text}{listed}"
    from rich.console import Group
    from rich.text import Text

    return Group(Text(text), listed) if text else listed
