"""Reads as much of a systemd service as a board without systemd must know to run it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """How a service is run.

    Attributes:
        commands: its ``ExecStart`` lines, in order.
        environment: added to what every service has.
        user: that it runs as.
        umask: octal digits.
        unless: the service is left out when this path is there; "" for never.
    """

    commands: tuple[tuple[str, ...], ...]
    environment: tuple[str, ...]
    user: str
    umask: str
    unless: str


def read_service(text: str) -> Service:
    """Read a unit of ours, whose values hold neither quotes nor specifiers."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith(("#", "[")):
            found.setdefault(name, []).append(value)
    conditions = [value.removeprefix("!") for value in found.get("ConditionPathExists", []) if value.startswith("!")]
    return Service(
        commands=tuple(tuple(command.split()) for command in found.get("ExecStart", [])),
        environment=tuple(found.get("Environment", [])),
        user=found.get("User", ["root"])[-1],
        umask=found.get("UMask", ["0022"])[-1],
        unless=conditions[-1] if conditions else "",
    )
