"""An aarch64 board out of a root filesystem: its processes run under QEMU's user mode, in namespaces of their own.

Power comes and goes with the first process of a PID namespace: when it is killed, the kernel kills every other one in
it at once, and the mounts, which are in a namespace too, are gone with the last. It also dies with whoever runs the
tests. What systemd would do at boot is done here, out of the units that were flashed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil

from devices.provision.units import ACTIVATION, AGENT_UNIT, SETUP_UNIT
from tests.fakes.waiting import wait_for
from tests.qemu.debian import PROCESSOR
from tests.qemu.services import Service, read_service

BASIC = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL=C.UTF-8",
    PROCESSOR,
)
"""What systemd gives every service, and which processor QEMU is to be: that of a Raspberry Pi 5."""
_PROCESSOR = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""
"""Of ``/proc/cpuinfo``: QEMU before 8.1 shows that of the machine below, on which ONNX Runtime's reader crashes."""
NOTIFY = "/run/roadcast.notify"
_BOOT = """mount -t proc proc "$0/proc"
mount --bind /dev "$0/dev"
mount --bind "$1" "$0/proc/cpuinfo"
mount --bind -o ro /sys "$0/sys"
echo up
exec chroot "$0" sleep infinity"""


class Board:
    """A board that is off until `power_on`.

    Args:
        root: its root filesystem, for root to write into.
        log: file that gets what its processes print.
    """

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self._log = root, log
        self._power: subprocess.Popen[bytes] | None = None
        self._first = 0
        self._started: list[subprocess.Popen[bytes]] = []

    def power_on(self) -> None:
        """Begin a boot: nothing runs yet but the first process."""
        processors = self._log.with_name("cpuinfo")
        processors.write_text("".join(_PROCESSOR.format(number=number) for number in range(os.cpu_count() or 1)))
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with self._log.open("ab") as log:  # unshare complains when what it watches over is killed
            command += ["sh", "-ec", _BOOT, str(self.root), str(processors)]
            self._power = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self._power.stdout is not None
        assert self._power.stdout.readline() == b"up\n"
        (first,) = psutil.Process(self._power.pid).children()
        self._first = first.pid

    def power_off(self) -> None:
        """Cut the power: SIGKILL to every process there is, with no chance for any to end in order."""
        if self._power is None:
            return
        if self._power.poll() is None:
            os.kill(self._first, signal.SIGKILL)
        for process in (*self._started, self._power):
            process.wait(timeout=60)
        assert self._power.stdout is not None
        self._power.stdout.close()
        self._power = None
        self._started.clear()

    def run(self, *command: str, user: str = "root", good: bool = True, home: str = "/root") -> str:
        """Run a command on the board to its end; return what it printed."""
        wrapped = self._inside(command, (*BASIC, f"HOME={home}"), user, "0022")
        with self._log.open("ab") as log:
            ran = subprocess.run(wrapped, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
        assert not good or ran.returncode == 0, f"{' '.join(command)} ended with {ran.returncode}; see {self._log}"
        return ran.stdout

    def activate(self) -> None:
        """Make user, owners and the service's folders, as a boot does."""
        self.run("sh", "-ec", ACTIVATION)
        own = ("-o", self._agent.user, "-g", self._agent.user, "-d")
        self.run("install", "-m", "0750", *own, "/var/lib/roadcast")
        self.run("install", "-m", "0755", *own, "/run/roadcast")

    def set_up(self) -> bool:
        """Run the set-up service; False when its condition says that there is nothing to do."""
        service = self._service(SETUP_UNIT)
        if self.run("sh", "-c", 'test -e "$0" && echo there', service.unless, good=False):  # a link leads to it
            return False
        for command in service.commands:
            with self._log.open("ab") as log:
                wrapped = self._inside(command, (*BASIC, *service.environment), service.user, service.umask)
                subprocess.run(wrapped, stdout=log, stderr=log, check=True)
        return True

    def start_agent(self, within_s: float) -> None:
        """Start the agent's service, and wait until it has told systemd that it is ready."""
        service = self._agent
        path = self.root / NOTIFY.removeprefix("/")
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener, self._log.open("ab") as log:
            listener.bind(str(path))
            path.chmod(0o666)
            listener.setblocking(False)
            environment = (*BASIC, *service.environment, f"NOTIFY_SOCKET={NOTIFY}", "ROADCAST_LOG=INFO")
            command = self._inside(service.commands[0], environment, service.user, service.umask)
            agent = subprocess.Popen(command, stdout=log, stderr=log)
            self._started.append(agent)

            def is_ready() -> bool:
                assert agent.poll() is None, f"the agent ended with {agent.returncode}; see {self._log}"
                try:
                    return b"READY=1" in listener.recv(4096)
                except BlockingIOError:
                    return False

            wait_for(is_ready, "READY=1 from the agent", within_s=within_s)

    def stop_agent(self) -> int:
        """End the agent in order, as `systemctl stop` does; return its exit code."""
        agent = self._started[-1]
        (served,) = psutil.Process(agent.pid).children()
        served.terminate()
        return agent.wait(timeout=180)

    @property
    def _agent(self) -> Service:
        return self._service(AGENT_UNIT)

    def _service(self, unit: str) -> Service:
        return read_service((self.root / "etc/systemd/system" / unit).read_text())

    def _inside(self, command: tuple[str, ...], environment: tuple[str, ...], user: str, umask: str) -> tuple[str, ...]:
        """The command, in the namespaces and below the root of the board, as a user, with nothing of this machine."""
        enter = ("nsenter", "--target", str(self._first), "--mount", "--pid", "--root", "--wd")
        limited = ("--no-new-privs", "--bounding-set=-all") if user != "root" else ()
        who = ("setpriv", "--reuid", user, "--regid", user, "--init-groups", *limited)
        return (*enter, "env", "-i", *environment, *who, "sh", "-c", f'umask {umask}; exec "$@"', "sh", *command)
