"""`roadcast flash --rootfs … --then-flash BOARD:DISK`: NVIDIA's tool, once nothing is known to make it fail."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec
import typer

from devices.boards.machine import Machine
from devices.findings import Finding, worst
from devices.provision import rootfs
from devices.provision.changes import Change
from devices.provision.l4t import L4t, check_host, check_tree, command, folder_of
from devices.provision.plan import Plan
from devices.provision.programs import Programs
from devices.provision.system_checks import Folder, check_system
from edge_protocol.errors import ConfigError, NotReadyError
from roadcast.output import warn


class Handed(msgspec.Struct, frozen=True):
    """What was handed to NVIDIA's tool.

    Attributes:
        changes: in the tree.
        findings: what was looked for before.
        command: that was run in ``Linux_for_Tegra``, or would be.
        done: whether it ran, to a good end.
    """

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]
    command: str
    done: bool


def warn_of_tree(tree: Path, machine: str, python: str) -> None:
    """Tell what makes a board that gets this tree not start, or not run the agent."""
    nvidia = folder_of(tree) is not None
    warn_of(check_tree(tree, machine, python) if nvidia else check_system(Folder(tree), machine, python))


def warn_of(findings: Iterable[Finding]) -> None:
    """Tell what was found, each with what mends it."""
    for finding in findings:
        warn(f"{finding.check}: {finding.says}; {finding.fix}" if finding.fix else f"{finding.check}: {finding.says}")


def flash_board(
    plan: Plan,
    tree: Path,
    where: str,
    machine: str,
    *,
    yes: bool,
    dry_run: bool,
    host: Machine | None = None,
    programs: Programs | None = None,
) -> Handed:
    """Carry a plan out in NVIDIA's tree, then have NVIDIA's tool write it onto the board in recovery mode.

    Args:
        plan: of the device.
        tree: ``Linux_for_Tegra/rootfs``.
        where: ``BOARD:DISK``; without a disk the board's own storage.
        machine: the processor that the site says.
        yes: do not ask.
        dry_run: only look.
        host: this machine.
        programs: of this machine.

    Raises:
        ConfigError: the tree is not NVIDIA's, `where` names no board, or the answer was no.
        NotReadyError: something was found that makes it fail, this is not root, or NVIDIA's tool failed.
    """
    folder = folder_of(tree)
    if folder is None:
        raise ConfigError(f"--then-flash: there is no flash.sh beside {tree}; it must be Linux_for_Tegra/rootfs")
    board, _, disk = where.partition(":")
    argv = command(folder, board, disk or "internal")
    l4t = L4t(folder, host or Machine(), programs or Programs())
    found = (*check_tree(tree, machine), *check_host(l4t, board, disk or "internal"))
    changes = rootfs.carry_out(plan, tree, dry_run=dry_run)
    handed = Handed(changes, found, shlex.join(argv), done=False)
    if dry_run:
        return handed
    _refuse_unready(found)
    if not yes and not typer.confirm(f"Write over everything on the {board} in recovery mode?", err=True):
        raise ConfigError("the tree is written, the board not flashed; answer y, or give --yes")
    status = subprocess.run(argv, cwd=folder, stdout=2, check=False).returncode
    if status:
        says = f"NVIDIA's tool left with {status}; its log is above and in {folder / 'initrdlog'}"
        raise NotReadyError(f"{says}. Run again what it said: cd {folder} && {handed.command}")
    return msgspec.structs.replace(handed, done=True)


def _refuse_unready(found: tuple[Finding, ...]) -> None:
    warn_of(finding for finding in found if finding.level == "warn")
    if worst(found) == "fail":
        lines = "; ".join(f"{one.says} ({one.fix})" if one.fix else one.says for one in found if one.level == "fail")
        raise NotReadyError(f"the tree is written, the board not flashed: {lines}")
    if os.geteuid() != 0:
        raise NotReadyError("the tree is written, the board not flashed: NVIDIA's tools want root; run it with sudo")
