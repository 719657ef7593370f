"""``roadcast broker``: a private MQTT broker for one machine, a test bench or a small fleet."""

from __future__ import annotations

import sys
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from broker_server.brokers import Broker, BrokerKind, BrokerOptions, choose_broker
from broker_server.brokers.secure import Limits, SecureMosquitto, identity_of, write_configuration
from broker_server.ca.issuing import BROKER, OPERATOR
from edge_protocol.errors import ConfigError, TransportError
from edge_protocol.files import write_atomic
from roadcast.commands.ca import Passphrase, open_authority, read_file
from roadcast.output import JsonFlag, emit, stop_signals, warn

app = typer.Typer(no_args_is_help=True)
_POLL_S = 0.2


@app.callback()
def broker() -> None:
    """Run a private MQTT broker."""


@app.command()
def run(
    *,
    kind: Annotated[BrokerKind, typer.Option(help="Which broker; auto takes Mosquitto, else NATS.")] = "auto",
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 1883,
    state_dir: Annotated[Path, typer.Option(help="Folder for its configuration, log and messages.")] = Path("broker"),
    secure: Annotated[
        Path | None,
        typer.Option(help="A folder of `roadcast broker config`: Mosquitto as written there, and nothing else."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Run a broker until Ctrl-C or SIGTERM, and print its address once it answers."""
    if secure is not None:
        chosen: Broker = SecureMosquitto(secure)
    else:
        chosen = choose_broker(kind, options=BrokerOptions(state_dir=state_dir, host=host, port=port))
    if secure is None and not _is_loopback(host):
        warn(f"anyone who reaches {host}:{port} can speak for any device; keep it in a network of your own")
    with stop_signals() as stop, chosen:
        emit(_describe(chosen), json, lambda found: f"{found['kind']} at {found['host']}:{found['port']}")
        sys.stdout.flush()
        watch(chosen, stop)


@app.command()
def config(
    *,
    out: Annotated[Path, typer.Option(help="The broker's folder.")],
    host: Annotated[list[str], typer.Option("--host", help="Name or address that clients use; repeat it for more.")],
    bind: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8883,
    connections: Annotated[int, typer.Option(min=1, help="Most clients at once.")] = 10_000,
    ca: Annotated[Path | None, typer.Option(help="Folder of the authority, when it is on this machine.")] = None,
    fleet: Annotated[str | None, typer.Option(help="Name of the fleet, when it is not.")] = None,
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Write a configuration of Mosquitto for mutual TLS: exact rights for each device, limits, no anonymous client."""
    authority = open_authority(ca, passphrase_file) if ca is not None else None
    name = authority.policy.fleet if authority else fleet
    if name is None:
        raise ConfigError("broker config: give --ca DIR, or --fleet NAME when the authority is on another machine")
    write_configuration(out, name, bind, port, Limits(connections=connections))
    todo = []
    for holder, hosts in ((BROKER, host), (OPERATOR, [])):
        files, now = identity_of(out, holder), time.time()
        with files.alone():
            request = files.request(holder)
            if authority is not None:
                files.install(authority.sign(request, holder, hosts, now), authority.anchors, holder)
            else:
                write_atomic(out / f"{holder}.csr", request)
                names = "".join(f" --host {each}" for each in hosts)
                todo.append(f"roadcast ca sign {holder} {holder}.csr --out {files.next_certificate.name}{names}")
    if authority is not None:
        write_atomic(out / "crl.pem", authority.revocations(time.time()))
    else:
        todo += ["roadcast ca crl --out crl.pem", f"copy ca/ca.pem, crl.pem and both certificates into {out}"]
        todo.append(f"roadcast broker run --secure {out}")
    said = {"folder": str(out), "fleet": name, "port": port, "todo": todo}
    emit(said, json, lambda _: "\n".join(todo or [f"now: roadcast broker run --secure {out}"]))


@app.command()
def refresh(
    *,
    folder: Annotated[Path, typer.Option("--dir", help="The broker's folder.")],
    ca: Annotated[Path | None, typer.Option(help="Folder of the authority, when it is on this machine.")] = None,
    crl: Annotated[Path | None, typer.Option(help="What `roadcast ca crl` wrote, when it is not.")] = None,
    end: Annotated[list[str] | None, typer.Option(help="With --crl, a name to disconnect; repeat it for more.")] = None,
    passphrase_file: Passphrase = None,
    json: JsonFlag = False,
) -> None:
    """Tell the running broker who is revoked, and end their sessions and those of expired certificates; for a timer."""
    from broker_server.brokers import sessions

    settings = SecureMosquitto(folder).settings
    if (ca is None) == (crl is None) or (ca is not None and end):
        raise ConfigError("broker refresh: give --ca DIR, or --crl FILE and --end NAME for whom to disconnect")
    if ca is not None:
        ended = sessions.refresh(folder, settings, open_authority(ca, passphrase_file), time.time())
    else:
        sessions.take_list(folder, read_file(crl) if crl else b"")
        ended = sorted(end or ())
        sessions.end_sessions(settings, ended)
    emit({"ended": ended}, json, lambda _: f"list renewed; sessions ended: {', '.join(ended) or 'none'}")


def watch(running: Broker, stop: threading.Event) -> None:
    """Wait for `stop`.

    Raises:
        TransportError: the broker ended by itself.
    """
    while not stop.wait(_POLL_S):
        if not running.running:
            raise TransportError(f"broker {running.kind} ended by itself; its log says why: {running.log_file}")


def _describe(running: Broker) -> dict[str, str | int | None]:
    return {
        "kind": running.kind,
        "host": running.settings.host,
        "port": running.port,
        "pid": running.pid,
        "log": str(running.log_file),
    }


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
