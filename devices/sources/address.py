"""The address of a source: a URI, its options, and how it is shown without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from edge_protocol.errors import ConfigError

SCHEMES = ("file", "folder", "pack", "csv", "rtsp", "rtsps", "v4l2", "csi")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Address:
    """A source's URI in parts.

    Attributes:
        scheme: one of `SCHEMES`.
        target: path, device number, or for a network camera its whole URI without our options.
        options: what stands after ``#`` (and after ``?``, which belongs to the camera in a network URI).
        shown: the URI without password, for messages and logs.
    """

    scheme: str
    target: str
    options: dict[str, str]
    shown: str

    @property
    def path(self) -> Path:
        """The target as a path."""
        return Path(self.target)

    def flag(self, name: str, *, default: bool) -> bool:
        """An option that is true or false.

        Raises:
            ConfigError: it is neither.
        """
        text = self.options.get(name)
        if text is None:
            return default
        if text.lower() not in _TRUTH:
            raise ConfigError(f"source {self.shown}: {name}={text!r} must be true or false")
        return _TRUTH[text.lower()]

    def number(self, name: str, *, default: float, low: float, high: float) -> float:
        """An option that is a number from `low` to `high`.

        Raises:
            ConfigError: it is not.
        """
        text = self.options.get(name)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ConfigError(f"source {self.shown}: {name}={text!r} must be a number from {low:g} to {high:g}")
        return value


def parse_address(uri: str, allowed: dict[str, frozenset[str]]) -> Address:
    """Take a source's URI apart.

    Args:
        uri: such as ``file:///srv/clip.mp4``, ``rtsp://user:secret@10.0.0.5/main#stall_s=5``.
        allowed: options that each scheme knows.

    Raises:
        ConfigError: the scheme or an option is unknown, or the target is missing.
    """
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError as error:
        raise ConfigError(f"source: not a URI: {error}") from error
    network = parts.scheme in {"rtsp", "rtsps"}
    shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if parts.scheme not in allowed:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ConfigError(f"source {shown or uri!r}: unknown scheme {parts.scheme!r}; one of {known}")
    options = dict(parse_qsl(parts.fragment)) | ({} if network else dict(parse_qsl(parts.query)))
    unknown = sorted(options.keys() - allowed[parts.scheme])
    if unknown:
        known = ", ".join(sorted(allowed[parts.scheme])) or "none"
        raise ConfigError(f"source {shown}: unknown option {unknown[0]!r}; {parts.scheme}:// knows: {known}")
    target = urlunsplit(parts._replace(fragment="")) if network else unquote(parts.netloc + parts.path)
    if not (host if network else target):
        raise ConfigError(f"source {shown}: says no {'host' if network else 'path'}")
    return Address(parts.scheme, target, options, shown)
