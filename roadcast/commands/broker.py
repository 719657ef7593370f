"""``roadcast broker``: a private MQTT broker for one machine, a test bench or a small fleet."""

from __future__ import annotations

import sys
import threading
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from broker_server.brokers import Broker, BrokerKind, BrokerOptions, choose_broker
from edge_protocol.errors import TransportError
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
    json: JsonFlag = False,
) -> None:
    """Run a broker until Ctrl-C or SIGTERM, and print its address once it answers."""
    chosen = choose_broker(kind, options=BrokerOptions(state_dir=state_dir, host=host, port=port))
    if not _is_loopback(host):
        warn(f"anyone who reaches {host}:{port} can speak for any device; keep it in a network of your own")
    with stop_signals() as stop, chosen:
        emit(_describe(chosen), json, lambda found: f"{found['kind']} at {found['host']}:{found['port']}")
        sys.stdout.flush()
        watch(chosen, stop)


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
