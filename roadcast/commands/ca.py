"""``roadcast ca``: a small certificate authority for one fleet: who may speak to the broker, and until when."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_protocol.errors import CheckFailedError, ConfigError, StoreError
from roadcast.output import JsonFlag, emit, log_to_stderr, stop_signals, table, warn

if TYPE_CHECKING:
    from broker_server.ca.folder import CertificateAuthority

app = typer.Typer(no_args_is_help=True)
Folder = Annotated[Path, typer.Option("--dir", help="The authority's folder.")]
Passphrase = Annotated[
    Path | None, typer.Option(help="File whose first line opens the authority's key; or $ROADCAST_CA_PASSPHRASE.")
]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="Name or address of a TLS server; repeat it for more.")]

REFRESH_POLL_S = 2.0


@app.callback()
def ca() -> None:
    """Certify devices, the server and the broker, and take it back."""


@app.command()
def init(
    *,
    folder: Folder = Path("ca"),
    fleet: Annotated[str, typer.Option(help="Name of the fleet.")],
    days: Annotated[float, typer.Option(help="Life of a new authority.")] = 3650.0,
    device_days: Annotated[float, typer.Option(help="Life of a device's certificate.")] = 90.0,
    passphrase_file: Passphrase = None,
    import_chain: Annotated[
        Path | None, typer.Option(help="PEM of an authority made elsewhere: the issuing one first, the root last.")
    ] = None,
    import_key: Annotated[Path | None, typer.Option(help="Its private key, PEM, mode 0600.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make an authority, or take one over that signs certificates already."""
    from broker_server.ca.folder import CaPolicy, CertificateAuthority, read_key
    from broker_server.ca.issuing import check_issuer
    from edge_protocol.identity.certificates import fingerprint, read_chain

    now, passphrase, issuer = time.time(), passphrase_of(passphrase_file), None
    if (import_chain is None) != (import_key is None):
        raise ConfigError("ca init: --import-chain and --import-key belong together")
    if import_chain is not None and import_key is not None:
        chain = read_chain(read_file(import_chain), str(import_chain))
        issuer = check_issuer(read_key(import_key, passphrase), chain, now)
    policy = CaPolicy(fleet=fleet, device_days=device_days)
    made = CertificateAuthority.init(folder, policy, issuer, passphrase, days, now)
    if passphrase is None:
        warn(f"{folder / 'ca.key'} is not encrypted: whoever copies it can speak for any device")
    said = {"folder": str(folder), "fleet": fleet, "fingerprint": fingerprint(made.issuer.chain).hex()}
    emit(said, json, lambda found: f"authority of {found['fleet']} in {found['folder']}: {found['fingerprint']}")


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="The device; 'server' for the server process.")],
    *,
    url: Annotated[str, typer.Option(help="Where `roadcast ca serve` answers: https://host:port.")],
    folder: Folder = Path("ca"),
    hours: Annotated[float, typer.Option(min=0.01, help="How long it may be used, a year at most.")] = 24.0,
    out: Annotated[
        Path | None, typer.Option(help="Put it into this folder, as the site's `install.tokens`, not on the screen.")
    ] = None,
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Make a token: whoever brings it first, before it expires, gets the certificate of that name."""
    from edge_protocol.files import write_atomic

    now = time.time()
    made = open_authority(folder, passphrase_file).token(name, url, hours * 3600, now)
    said = {"name": name, "expires_s": now + hours * 3600}
    if out is None:
        emit({**said, "token": made.text()}, json, lambda found: str(found["token"]))
        return
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out}: cannot be made: {error.strerror or error}") from error
    write_atomic(out / name, f"{made.text()}\n".encode(), 0o600)
    emit({**said, "file": str(out / name)}, json, lambda found: str(found["file"]))


@app.command()
def sign(
    name: Annotated[str, typer.Argument(help="Whose request it is: the device, 'server', 'operator' or the broker.")],
    request: Annotated[Path, typer.Argument(help="Certificate request, PEM.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the certificate goes.")],
    host: Hosts = None,
    folder: Folder = Path("ca"),
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Sign a request that came by hand; with --host for a TLS server, such as the broker, else for a client."""
    from edge_protocol.files import write_atomic

    certificate = open_authority(folder, passphrase_file).sign(read_file(request), name, host or (), time.time())
    write_atomic(out, certificate)
    said = {"name": name, "certificate": str(out), "authority": str(folder / "ca.pem")}
    emit(said, json, lambda found: f"{found['name']}: {found['certificate']}; it needs {found['authority']} beside it")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose certificates.")],
    *,
    reason: Annotated[str, typer.Option(help="For the list.")] = "revoked",
    folder: Folder = Path("ca"),
    json: JsonFlag = False,
) -> None:
    """Revoke every certificate and every unused token of a name; `roadcast broker refresh` then ends its sessions."""
    from broker_server.ca.folder import open_ledger

    count = open_ledger(folder).revoke(name, time.time(), reason[:200])
    if not count:
        raise CheckFailedError(f"{name!r} has no valid certificate; see: roadcast ca list --dir {folder}")
    emit(
        {"name": name, "revoked": count},
        json,
        lambda found: f"{found['revoked']} revoked; now: roadcast broker refresh",
    )


@app.command("list")
def list_certificates(*, folder: Folder = Path("ca"), json: JsonFlag = False) -> None:
    """Say who has which certificate, until when, and what was revoked."""
    from broker_server.ca.folder import open_ledger

    now = time.time()
    rows = [
        {"name": c.name, "serial": c.serial, "state": c.state(now), "ends_s": c.ends_s, "reason": c.reason}
        for c in open_ledger(folder).certificates()
    ]
    emit(rows, json, _listing)


@app.command()
def crl(
    *,
    out: Annotated[Path, typer.Option(help="Where the list goes.")],
    folder: Folder = Path("ca"),
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Sign the list of revoked certificates anew; the broker needs a new one before it expires (30 days)."""
    from edge_protocol.files import write_atomic

    write_atomic(out, open_authority(folder, passphrase_file).revocations(time.time()))
    emit({"crl": str(out)}, json, lambda found: found["crl"])


@app.command()
def serve(
    *,
    host: Hosts,
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 8443,
    broker: Annotated[
        Path | None, typer.Option(help="Folder of a broker on this machine, to refresh hourly and after a revocation.")
    ] = None,
    folder: Folder = Path("ca"),
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Enrol and renew over HTTPS until Ctrl-C or SIGTERM; --host is how devices reach it."""
    from broker_server.brokers.sessions import Refresher
    from broker_server.ca.service import EnrolmentService

    log_to_stderr()
    authority = open_authority(folder, passphrase_file)
    refresher = Refresher(broker, authority) if broker is not None else None
    with EnrolmentService(authority, bind, port, host or [], time.time) as service:
        said = {"url": f"https://{(host or [bind])[0]}:{service.server_address[1]}"}
        emit(said, json, lambda found: str(found["url"]))
        sys.stdout.flush()
        with stop_signals() as stop:
            answering = threading.Thread(target=service.serve_forever, name="enrolment")
            answering.start()
            while not stop.wait(REFRESH_POLL_S):
                if refresher is not None:
                    refresher.step(time.time())
            service.shutdown()
            answering.join()


def open_authority(folder: Path, passphrase_file: Path | None) -> CertificateAuthority:
    """Take up the authority of a folder, with the passphrase of a file or of the environment."""
    from broker_server.ca.folder import CertificateAuthority

    return CertificateAuthority.open(folder, passphrase_of(passphrase_file), time.time())


def passphrase_of(file: Path | None) -> bytes | None:
    """First line of the file, else ``$ROADCAST_CA_PASSPHRASE``, else None.

    Raises:
        StoreError: the file cannot be read.
    """
    text = read_file(file).partition(b"\n")[0] if file else os.environ.get("ROADCAST_CA_PASSPHRASE", "").encode()
    return text or None


def read_file(path: Path) -> bytes:
    """Read a file that the user named.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error


def _listing(rows: list[dict[str, Any]]) -> Any:  # noqa: ANN401 - whatever rich draws
    cells = [
        (row["name"], row["state"], time.strftime("%Y-%m-%d", time.gmtime(row["ends_s"])), row["reason"] or None,
         row["serial"]) for row in rows
    ]  # fmt: skip
    return table("", ("name", "state", "until", "reason", "serial"), cells)
