"""What a person far away needs to help with a device, as one archive without secrets or samples; owns no command line.

Passwords, keys and credentials in addresses are masked in every text that goes in. Of the state directory it takes
names, sizes and dates: no frame, no label, no weight and no key leaves with it.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_protocol.errors import StoreError
from edge_protocol.identity.token import MARK as TOKEN_MARK

MASK = "***"
MOST_FILES = 10_000
_NAMED = (
    r"(?:[a-z0-9_-]*(?:password|passphrase|passwd|pwd|secret|token|credentials?|api[_-]?key|private[_-]?key)"
    r"|pass|psk|auth|authorization|sig|signature)"
)
_QUOTED = r"\"(?:[^\"\\\n]|\\.)*\"?|'(?:[^'\n]|'')*'?"
_SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"(?<=://)[^\s\"'<>]*(?=@)",
        r"://[^\s\"'<>?]*\?(?P<value>[^\s\"'<>]+)",
        rf"(?<![a-z]){_NAMED}\s*=\s*(?P<value>{_QUOTED}|[^\s\"',;}}]+)",
        rf"(?<![a-z]){_NAMED}[\"']\s*:\s*(?P<value>{_QUOTED}|[^\s,}}\]]+)",
        rf"(?<![a-z]){_NAMED}\s*:\s*(?P<value>{_QUOTED}|[^\s\"'][^\n]*)",
        rf"--{_NAMED}\s+(?P<value>{_QUOTED}|\S+)",
        r"\b(?:bearer|basic)\s+(?P<value>[a-z0-9+/._~-]{8,}=*)",
        rf"\b{re.escape(TOKEN_MARK)}[\w.~-]+",
    )
)
"""Keys; in addresses what stands before the last @ and the whole query; after a telling name in the forms of an
assignment, JSON, YAML (to the end of the line) and a command line; headers; enrolment tokens anywhere."""


class StateFile(msgspec.Struct, frozen=True):
    """A file of the state directory: where, how large (bytes), and when it was written (seconds since 1970)."""

    path: str
    bytes: int
    written_s: float


def redacted(text: str) -> str:
    """Mask private keys, credentials in addresses, and values that are called password, token or the like."""
    for secret in _SECRETS:
        text = secret.sub(_masked, text)
    return text


def _masked(found: re.Match[str]) -> str:
    value = found.groupdict().get("value")
    if value is None:
        return MASK
    start, end = (at - found.start() for at in found.span("value"))
    return found[0][:start] + MASK + found[0][end:]


def state_files(folder: Path) -> tuple[StateFile, ...]:
    """What lies in a state directory, at most `MOST_FILES` files, by path; links are not followed.

    Raises:
        StoreError: it cannot be read.
    """
    found: list[StateFile] = []
    try:
        for path in sorted(folder.rglob("*")):
            if len(found) < MOST_FILES and path.is_file() and not path.is_symlink():
                told = path.stat()
                found.append(StateFile(str(path.relative_to(folder)), told.st_size, told.st_mtime))
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror or error}") from error
    return tuple(found)


def check_new(path: Path) -> None:
    """Refuse a place for a bundle before anything is gathered for it.

    Raises:
        StoreError: something lies there, or its folder does not exist.
    """
    if path.exists() or path.is_symlink():
        raise StoreError(f"{path} is there already; name a new file")
    if not path.parent.is_dir():
        raise StoreError(f"{path} cannot be written: there is no folder {path.parent}")


def write_bundle(path: Path, parts: Mapping[str, str], now: float) -> int:
    """Write redacted texts as a gzipped tar that only its owner can read; return its size in bytes.

    Args:
        path: a new file.
        parts: text by name, such as ``doctor.json``.
        now: seconds since 1970, the date of every part.

    Raises:
        StoreError: the file exists, or the disk refused.
    """
    packed = io.BytesIO()
    folder = time.strftime("roadcast-support-%Y%m%dT%H%M%SZ", time.gmtime(now))
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in sorted(parts.items()):
            data = redacted(text).encode(errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
            archive.addfile(entry, io.BytesIO(data))
    try:
        path.touch(mode=0o600, exist_ok=False)
        return path.write_bytes(packed.getvalue())
    except FileExistsError:
        raise StoreError(f"{path} is there already; name a new file") from None
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error
