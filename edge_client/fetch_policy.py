"""When a device may fetch, and how fast: a bandwidth cap, hours of the day, metered links; pure, owns no clock."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from edge_protocol.blobs import MAX_CHUNKS
from edge_protocol.errors import ConfigError

Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Hours = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]


def check_address(base: str) -> str:
    """Return the address of a mirror with a slash at its end.

    Raises:
        ConfigError: it is none.
    """
    try:
        place = urlsplit(base)
        good = place.scheme in {"http", "https"} and place.hostname and not (place.query or place.fragment)
        _ = place.port
    except ValueError:
        good = False
    if not good or place.username is not None or not base.isascii() or any(c <= " " for c in base):
        raise ConfigError(f"fetch: mirror {base[:200]!r} is no http:// or https:// address of a folder")
    return base.rstrip("/") + "/"


class FetchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where blobs come from beside the broker, and when.

    Attributes:
        mirror: address of a folder of blobs named by their hash, tried before the broker; it has to answer Range.
        mirror_ca_file: PEM certificates to trust for it in place of the system's.
        bytes_per_s: that are asked for at most, over time.
        hours: only then, by the device's local time: ``01:00-04:00``, also over midnight.
        metered: the link costs by the byte: fetch only what is urgent.
        metered_file: the same, while this file is there and holds neither nothing nor ``0``, ``no`` or ``false``.
        metered_command: the same, while this command exits with 0; it is run once a minute.
    """

    mirror: Text | None = None
    mirror_ca_file: Text | None = None
    bytes_per_s: Annotated[float, Meta(ge=100)] | None = None
    hours: Hours | None = None
    metered: bool = False
    metered_file: Text | None = None
    metered_command: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        if self.hours is not None and self.hours[:5] == self.hours[6:]:
            raise ConfigError(f"fetch: hours {self.hours!r} are none; leave the key out for the whole day")
        if self.mirror is not None:
            check_address(self.mirror)
        if self.mirror_ca_file is not None and self.mirror is None:
            raise ConfigError("fetch: mirror_ca_file needs mirror")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the device finds itself in.

    Attributes:
        minute: of the local day, 0 to 1,439.
        metered: the link costs by the byte.
        urgent: fetch whatever the hour and the link.
    """

    minute: int = 0
    metered: bool = False
    urgent: bool = False


class Allowance:
    """Says how many bytes may be asked for.

    The cap is a token bucket: one second's worth may come at once, and a chunk may be asked for while anything is left,
    so that chunks larger than that pass too, at the same rate.

    Attributes:
        reason: why nothing may be asked for, "" when something may; a full bucket's turn is no reason.
    """

    def __init__(self, config: FetchConfig) -> None:
        self._rate = config.bytes_per_s
        self._hours = _minutes(config.hours) if config.hours else None
        self._config = config
        self._left, self._at = config.bytes_per_s or inf, -inf
        self.reason = ""

    def chunks(self, size: int, around: Surroundings, now: float) -> int:
        """Chunks of `size` bytes that may be asked for at `now` (s)."""
        self.reason = "" if around.urgent else self._why_not(around)
        if self.reason:
            return 0
        if self._rate is None:
            return MAX_CHUNKS
        self._fill(now)
        return max(ceil(self._left / size), 0)

    def spend(self, count: int) -> None:
        """Bytes were asked for."""
        self._left -= count

    def next_deadline(self) -> float | None:
        """When the bucket has something again (s), None when it has, or when it is not that what is waited for."""
        if self.reason or self._rate is None or self._left > 0:
            return None
        return self._at + (1 - self._left) / self._rate

    def _fill(self, now: float) -> None:
        assert self._rate is not None
        if now > self._at:
            self._left = min(self._left + self._rate * (now - self._at), self._rate)
            self._at = now

    def _why_not(self, around: Surroundings) -> str:
        if around.metered:
            return "the link is metered"
        if self._hours is None:
            return ""
        begin, end = self._hours
        inside = begin <= around.minute < end if begin < end else around.minute >= begin or around.minute < end
        return "" if inside else f"the hours are {self._config.hours}"


def _minutes(hours: str) -> tuple[int, int]:
    begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in hours.split("-"))
    return begin, end
