"""NVIDIA FLARE and Flower as fleets on loopback: a real server and N real client processes behind a link that counts.

What they write stays in ``build/peers-run`` until the next run. Neither encrypts here, as our broker does not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.delivery.link import Link
from benchmarks.delivery.peer_side.turns import PORT
from benchmarks.delivery.peer_turns import Lead
from edge_protocol.errors import NotReadyError

ROOT = Path(__file__).resolve().parents[2]
VENV = Path("build/peers-venv")
PINS = Path("benchmarks/delivery/peers.txt")
READY_S = 600
SIDE = "benchmarks.delivery.peer_side"
ADMIN = "admin@bench.org"


def peers_installed(venv: Path = ROOT / VENV, pins: Path = ROOT / PINS) -> dict[str, str]:
    """Versions of the peers in their environment, by name.

    Raises:
        NotReadyError: the environment lacks one of them, in the version that is pinned.
    """
    wanted = dict(line.split("==") for line in pins.read_text(encoding="utf-8").split("\n") if "==" in line)
    for name, version in wanted.items():
        if not list(venv.glob(f"lib/python*/site-packages/{name}-{version}.dist-info")):
            raise NotReadyError(f"{name} {version} is not in {venv}; run: make peers")
    return wanted


class Fleet:
    """Processes of a peer, and all that they start; ended together."""

    def __init__(self, folder: Path, lead: Lead, settings: Mapping[str, str]) -> None:
        self.folder, self._running = folder, list[subprocess.Popen[bytes]]()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        programs = f"{ROOT / VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": programs, "PYTHONPATH": str(ROOT), "HOME": str(folder), PORT: str(lead.port)}
        self._environment = {**os.environ, **own, **settings}

    def start(self, log: str, *command: str) -> None:
        """Start a process that writes a log, in a session of its own."""
        with (self.folder / f"{log}.log").open("wb") as file:
            self._running.append(
                subprocess.Popen(
                    command,
                    env=self._environment,
                    cwd=self.folder,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def wait_said(self, log: str, text: str) -> None:
        """Wait until a log holds a text.

        Raises:
            NotReadyError: it does not.
        """
        until = time.monotonic() + READY_S
        while text not in (self.folder / f"{log}.log").read_text(encoding="utf-8", errors="replace"):
            if time.monotonic() > until:
                raise NotReadyError(f"{self.folder / log}.log does not say {text!r} after {READY_S} s")
            time.sleep(0.1)

    def do(self, *command: str) -> None:
        """Wait for a command to end.

        Raises:
            NotReadyError: it failed.
        """
        self.start("command", *command)
        code = self._running[-1].wait(READY_S)
        if code:
            said = (self.folder / "command.log").read_text(encoding="utf-8", errors="replace")
            raise NotReadyError(f"{' '.join(command[:2])} ended with {code}: {said}")

    def close(self) -> None:
        """End every process, and what they started meanwhile: all that carry the fleet's port in their environment."""
        while known := [process for process in psutil.process_iter() if self._owns(process)]:
            for process in known:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(known, timeout=10)
        for each in self._running:
            each.wait()

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(PORT) == self._environment[PORT]
        except psutil.Error:
            return False


@contextmanager
def flare(folder: Path, lead: Lead, count: int) -> Iterator[Link]:
    """A provisioned FLARE server and its sites over plain TCP (its leanest driver), in a Collab job."""
    with ExitStack() as stack:
        [port] = free_ports(1)
        link = stack.enter_context(Link(port))
        fleet = Fleet(folder, lead, {})
        stack.callback(fleet.close)
        (folder / "project.yml").write_text(json.dumps(_project(count, port, link.port)), encoding="utf-8")
        fleet.do("nvflare", "provision", "-p", "project.yml", "-w", "kits")
        kits = folder / "kits" / "bench" / "prod_00"
        for name in ("localhost", *(f"site-{n}" for n in range(count))):
            fleet.start(name, "bash", str(kits / name / "startup" / "sub_start.sh"), "--once")
        wait_open(port)
        fleet.do("python", "-m", f"{SIDE}.flare_app", str(kits / ADMIN), str(count))
        lead.wait_ready(READY_S)
        yield link


def _project(count: int, port: int, entry: int) -> dict[str, object]:
    """What FLARE provisions: sites come in by the link. JSON, which is YAML too."""
    common = {"org": "bench", "connection_security": "clear"}
    sites = [
        {"name": f"site-{n}", "type": "client", "connect_to": {"host": "localhost", "port": entry}, **common}
        for n in range(count)
    ]
    builders = {
        "workspace.WorkspaceBuilder": {"template_file": ["master_template.yml"]},
        "static_file.StaticFileBuilder": {"config_folder": "config", "scheme": "tcp"},
        "cert.CertBuilder": {},
        "signature.SignatureBuilder": {},
    }
    server = {"name": "localhost", "type": "server", "fed_learn_port": port, "admin_port": port, **common}
    admin = {"name": ADMIN, "type": "admin", "role": "project_admin", **common}
    return {
        "api_version": 3,
        "name": "bench",
        "participants": [server, *sites, admin],
        "builders": [{"path": f"nvflare.lighter.impl.{name}", "args": args} for name, args in builders.items()],
    }


@contextmanager
def flower(folder: Path, lead: Lead, count: int) -> Iterator[Link]:
    """A SuperLink and its SuperNodes over HTTP; SuperExecs ask for tasks more often than their default while few do."""
    settings = {
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": str(min(count / 8, 1)),
    }
    with ExitStack() as stack:
        port, *own = free_ports(1 + count)
        link = stack.enter_context(Link(port))
        fleet = Fleet(folder, lead, settings)
        stack.callback(fleet.close)
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        at = ("--insecure", "--host", "127.0.0.1", "--port")
        fleet.start("superlink", "flower-superlink", *at, str(port), "--disable-runtime-dependency-installation")
        wait_open(port)
        for n in range(count):
            fleet.start(f"node-{n}", "flower-supernode", *at, str(own[n]), "--superlink", f"127.0.0.1:{link.port}")
        for log in ("superlink", *(f"node-{n}" for n in range(count))):
            fleet.wait_said(log, "Starting Flower SuperExec")
        (folder / "app").mkdir()
        shutil.copy(ROOT / "benchmarks/delivery/peer_side/flower_app.py", folder / "app")
        (folder / "app" / "pyproject.toml").write_text(FLOWER_APP.format(count), encoding="utf-8")
        fleet.do("flwr", "run", "app", "bench")
        lead.wait_ready(READY_S)
        yield link


FLOWER_APP = """
[project]
name = "peers"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "flower_app:server"
clientapp = "flower_app:client"
[tool.flwr.app.config]
clients = {}
"""


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def wait_open(port: int) -> None:
    """Wait until something listens on a port of loopback.

    Raises:
        NotReadyError: nothing does.
    """
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 30):
            return
        time.sleep(0.1)
    raise NotReadyError(f"nothing listens on port {port} after {READY_S} s; the peer's logs say why")
