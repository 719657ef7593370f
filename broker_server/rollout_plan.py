"""How a release is to go over the fleet: who, how many at a time, how long to watch, what is too much; pure values.

Owns the order in which devices come, and the text forms that people write (``5%``, ``tag=north``, ``01:00-04:00``).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

from edge_protocol.errors import ConfigError
from edge_protocol.ids import DeviceId

DAY_S = 86_400.0
Share = Annotated[float, Meta(gt=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]
Tags = Mapping[str, tuple[str, ...]]
"""Tag → patterns of device names that bear it."""
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_KEYS = ("board", "device", "student", "tag", "tier")


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A rollout as an operator or the configuration asks for it.

    Attributes:
        to: devices it is for, as ``tag=north,tier=nano``, all parts of which must hold: keys board, device, student,
            tag, tier; values may hold ``*``; "" for the whole fleet.
        canary: share of them that comes first, at least one device of each tier.
        waves: shares that follow, growing, the last one 1.
        soak_s: how long a wave is watched after its devices have committed.
        deadline_s: silence of a device, from its offer on, that counts as a failure; about its latency, from when it
            runs the release.
        max_failures: failed devices that are borne; one more aborts the rollout.
        max_latency_p95_ms: a device that answers slower with the release has failed, and one that has not said how fast
            it answers has not committed: it is asked; None for any latency.
        window: ``HH:MM-HH:MM`` in UTC; a wave begins only inside it; "" for any time.
    """

    to: str = ""
    canary: Share = 0.05
    waves: Annotated[tuple[Share, ...], Meta(min_length=1, max_length=16)] = (0.25, 1.0)
    soak_s: Seconds = 1800.0
    deadline_s: Annotated[float, Meta(gt=0)] = 7200.0
    max_failures: Annotated[int, Meta(ge=0)] = 0
    max_latency_p95_ms: Annotated[float, Meta(gt=0)] | None = None
    window: str = ""

    def __post_init__(self) -> None:
        steps = (self.canary, *self.waves)
        if list(steps) != sorted(set(steps)) and steps != (1.0, 1.0):
            raise ConfigError(f"rollout: canary and waves must grow, got {', '.join(f'{step:g}' for step in steps)}")
        if self.waves[-1] != 1:
            raise ConfigError("rollout: the last wave must be 1 (100%), or devices would stay behind for ever")
        _parts(self.to)
        _bounds(self.window)

    def opens_at(self, now: float) -> float:
        """When a wave may begin: `now`, or the next opening of the window, seconds since 1970."""
        bounds = _bounds(self.window)
        if bounds is None:
            return now
        start, end = bounds
        since_open = (now - start) % DAY_S
        return now if since_open < (end - start) % DAY_S else now + DAY_S - since_open

    def covers(self, member: Member, tags: Tags) -> bool:
        """Whether the rollout is for this device."""
        return all(_holds(key, pattern, member, tags) for key, pattern in _parts(self.to))


class Member(msgspec.Struct, frozen=True):
    """What the choice of devices looks at.

    Attributes:
        present: whether the device is there now.
        tags: that an operator gave it, beside those of the configuration.
    """

    device: DeviceId
    tier: str
    board: str = ""
    student: str = ""
    present: bool = True
    tags: frozenset[str] = frozenset()


def in_order(members: Iterable[Member], salt: str) -> list[Member]:
    """Put devices in the order in which they get a release: the same one for the same fleet and salt.

    One present device of each tier comes first; then every prefix holds boards and tiers in the shares that the whole
    has (systematic sampling over strata). Within a stratum, devices that are there come before those that are not, and
    a hash of `salt` decides, so that it is not always the same device that goes first.
    """
    strata: dict[tuple[str, str], list[Member]] = defaultdict(list)
    for member in members:
        strata[member.tier, member.board].append(member)
    placed: list[tuple[float, str, Member]] = []
    for group in strata.values():
        group.sort(key=lambda m: (not m.present, _hash(m.device, salt)))
        placed += [((at + 0.5) / len(group), _hash(m.device, salt), m) for at, m in enumerate(group)]
    ordered = [member for *_, member in sorted(placed, key=lambda entry: entry[:2])]
    first: dict[str, Member] = {}
    for member in ordered:
        if member.present:
            first.setdefault(member.tier, member)
    chosen = list(first.values())
    return [*chosen, *(member for member in ordered if member not in chosen)]


def size_of(share: float, members: int, tiers: int) -> int:
    """How many devices a share is: rounded up, at least one of each tier."""
    return min(members, max(tiers, math.ceil(share * members - 1e-9)))


def parse_share(text: str) -> float:
    """Read ``5%`` or ``0.05``.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise ConfigError(f"{text!r} is no share; write 5% or 0.05") from None


def parse_quantity(text: str, units: Mapping[str, float], what: str) -> float:
    """Read a number with a unit, such as ``30m`` or ``40ms``, in the unit that counts 1.

    Raises:
        ConfigError: it has no unit, or another one.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text)
    if found is None or found[2] not in units:
        such = " or ".join(f"30{unit}" for unit in list(units)[:2])
        raise ConfigError(f"{text!r} is no {what}; write a number and one of {', '.join(units)}, such as {such}")
    return float(found[1]) * units[found[2]]


SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}
MILLISECONDS = {"ms": 1.0, "s": 1000.0}


def _hash(device: str, salt: str) -> str:
    return blake2b(f"{salt}/{device}".encode(), digest_size=8).hexdigest()


def _parts(to: str) -> list[tuple[str, str]]:
    parts = []
    for part in filter(None, to.split(",")):
        key, equals, pattern = part.strip().partition("=")
        if not equals or not pattern or key not in _KEYS:
            raise ConfigError(f"rollout: {part!r} selects nothing; write KEY=VALUE with a key of {', '.join(_KEYS)}")
        parts.append((key, pattern))
    return parts


def _holds(key: str, pattern: str, member: Member, tags: Tags) -> bool:
    if key == "tag":
        bearing = (names for tag, names in tags.items() if fnmatchcase(tag, pattern))
        own = any(fnmatchcase(tag, pattern) for tag in member.tags)
        return own or any(fnmatchcase(member.device, name) for names in bearing for name in names)
    return fnmatchcase(getattr(member, key), pattern)


def _bounds(window: str) -> tuple[float, float] | None:
    if not window:
        return None
    found = _WINDOW.fullmatch(window)
    if found is None or window[:5] == window[6:]:
        raise ConfigError(f"rollout: window {window!r}: write HH:MM-HH:MM in UTC, such as 01:00-04:00")
    a, b, c, d = (int(part) for part in found.groups())
    return a * 3600.0 + b * 60.0, c * 3600.0 + d * 60.0
