"""Getting and renewing the certificate of a device or of the server: what their commands share. Owns no file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edge_protocol.errors import ConfigError
from edge_protocol.identity.certificates import common_name
from edge_protocol.identity.files import IdentityFiles
from roadcast.output import emit

Token = Annotated[
    str | None, typer.Option(help="From `roadcast ca token`; or $ROADCAST_TOKEN.", envvar="ROADCAST_TOKEN")
]
RequestOut = Annotated[
    Path | None, typer.Option("--csr-out", help="Write a certificate request here, to be signed elsewhere.")
]
Install = Annotated[Path | None, typer.Option(help="The certificate that `roadcast ca sign` wrote.")]
Force = Annotated[bool, typer.Option("--force", help="Renew although it is not due.")]
AuthorityFile = Annotated[Path | None, typer.Option("--authority", help="The authority's ca.pem, with --install.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to get a certificate: exactly one of these.

    Attributes:
        token: over HTTPS, now.
        csr_out: write a request; a later command installs what comes back.
        install, authority: a certificate that was signed elsewhere, and its authority's.
    """

    token: str | None = None
    csr_out: Path | None = None
    install: Path | None = None
    authority: Path | None = None


def enrol(files: IdentityFiles, name: str, way: Way, *, json: bool) -> None:
    """Do what the options of an `enrol` command ask for.

    Raises:
        ConfigError: not exactly one way was chosen.
        CheckFailedError: refused.
    """
    from edge_protocol.identity import enrolment

    chosen = sum(each is not None for each in (way.token, way.csr_out, way.install))
    if chosen != 1 or (way.install is None) != (way.authority is None):
        raise ConfigError("enrol: give --token, or --csr-out FILE, or --install FILE with --authority FILE")
    with files.alone():
        if way.csr_out is not None:
            _write_request(files, name, way.csr_out, json=json)
            return
        if way.token is not None:
            enrolment.enrol(files, name, way.token)
        if way.install is not None and way.authority is not None:
            files.install(_read(way.install), _read(way.authority), name)
        _report(files, name, json=json)


def renew(files: IdentityFiles, name: str, *, force: bool, json: bool) -> None:
    """Renew when it is due.

    Raises:
        CheckFailedError: refused.
    """
    from edge_protocol.identity import enrolment

    with files.alone():
        enrolment.renew(files, name, time.time(), force=force)
        _report(files, name, json=json)


def _report(files: IdentityFiles, name: str, *, json: bool) -> None:
    """Say which certificate there is now.

    Raises:
        ConfigError: it is of another name, as on a board that was given a new one.
    """
    held = files.held()
    if held is not None and (holder := common_name(held.subject)) != name:
        raise ConfigError(f"{files.certificate} is of {holder!r}, this is {name!r}; enrol with a token for {name!r}")
    ends = held.not_valid_after_utc if held else None
    said = {"name": name, "certificate": str(files.certificate), "ends_s": ends.timestamp() if ends else None}
    emit(said, json, lambda _: f"{name}: certified until {ends:%Y-%m-%d}" if ends else f"{name}: no certificate")


def _write_request(files: IdentityFiles, name: str, out: Path, *, json: bool) -> None:
    from edge_protocol.files import write_atomic

    write_atomic(out, files.request(name))
    emit({"name": name, "request": str(out)}, json, lambda _: f"now: roadcast ca sign {name} {out} --out {name}.pem")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
