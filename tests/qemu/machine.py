"""A whole aarch64 machine under QEMU's system emulation: its own kernel, disk and systemd; power is a process.

Root is reached over SSH. This machine's loopback is `SEEN_AS` from within. When the power is cut, QEMU is killed: what
the guest's kernel had not yet written to its disk is gone, and its journal is played back at the next boot.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.images import Inside
from tests.fakes.waiting import wait_for
from tests.qemu import debian
from tests.qemu.authority import HOST, free_port
from tests.qemu.system_image import NAME, SystemImage

SEEN_AS = "10.0.2.2"
"""Address of this machine's loopback on QEMU's user-mode network."""
PATIENCE_S = 1800
"""How long systemd there waits for a start where a unit does not say it: an emulated minute is a long one."""
_KERNEL_LINE = f"root=/dev/vda ro console=ttyAMA0 systemd.default_timeout_start_sec={PATIENCE_S}"


class Machine:
    """A machine that is off until `power_on`.

    Args:
        image: what it boots.
        disk: its own copy of the image's disk, flashed.
        log: file that gets its serial console, and what SSH complains of.

    Attributes:
        image, disk: as they were given.
        port: of this machine, that leads to its SSH server.
    """

    def __init__(self, image: SystemImage, disk: Path, log: Path) -> None:
        self.image, self.disk, self._log = image, disk, log
        self.port = free_port()
        self._power: subprocess.Popen[bytes] | None = None

    def power_on(self, within_s: float) -> None:
        """Boot; wait until root can log in."""
        console = ("-chardev", f"file,id=console,path={self._log},append=on", "-serial", "chardev:console")
        boots = ("-kernel", self.image.kernel, "-initrd", self.image.initrd, "-append", _KERNEL_LINE)
        drive = ("-drive", f"file={self.disk},format=raw,if=none,id=disk", "-device", "virtio-blk-pci,drive=disk")
        forward = f"user,id=wire,hostfwd=tcp:{HOST}:{self.port}-:22"
        wire = ("-netdev", forward, "-device", "virtio-net-pci,netdev=wire,romfile=")
        board = ("-M", "virt", "-cpu", "cortex-a76", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048")
        command = ("qemu-system-aarch64", *board, "-nodefaults", "-display", "none", *console, *boots, *drive, *wire)
        with self._log.open("ab") as log:
            watched = ("setpriv", "--pdeathsig", "KILL", *map(str, command))
            self._power = subprocess.Popen(watched, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, f"login over SSH; see {self._log}", within_s=within_s)

    def power_off(self) -> None:
        """Cut the power: SIGKILL to the machine itself."""
        if self._power is not None:
            self._power.kill()
            self._power.wait(timeout=60)
            self._power = None

    def run(self, *command: str, user: str = "root", good: bool = True, within_s: float = 600) -> str:
        """Run a command there to its end; return what it printed."""
        who = () if user == "root" else ("runuser", "-u", user, "--")
        ran = self._ssh(*who, *command, within_s=within_s)
        assert not good or ran.returncode == 0, f"{shlex.join(command)} ended with {ran.returncode}; see {self._log}"
        return ran.stdout

    def wait(self, condition: str, within_s: float) -> None:
        """Wait until a line of shell there succeeds."""
        self.run("sh", "-c", f"until {condition}; do sleep 0.5; done", within_s=within_s)

    def unit(self, name: str) -> dict[str, str]:
        """What systemd there knows of a unit."""
        lines = self.run("systemctl", "show", name).splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}

    def console(self) -> str:
        """What every boot so far has written to the serial console."""
        return self._log.read_text(errors="replace")

    @contextmanager
    def disk_after(self, folder: Path) -> Iterator[Inside]:
        """What the next boot finds: a copy of the disk with its journal played back; the machine is off."""
        assert self._power is None
        copy = folder / "played-back.img"
        try:
            debian.run("cp", "--sparse=always", self.disk, copy)
            fixed = subprocess.run(["e2fsck", "-fp", copy], capture_output=True, text=True, check=False)
            assert fixed.returncode in {0, 1}, fixed.stdout
            yield Inside(copy)
        finally:
            copy.unlink(missing_ok=True)

    def _answers(self) -> bool:
        assert self._power is not None
        assert self._power.poll() is None, f"QEMU ended with {self._power.returncode}; see {self._log}"
        return self._ssh("true", within_s=120).returncode == 0

    def _ssh(self, *command: str, within_s: float) -> subprocess.CompletedProcess[str]:
        says = {
            "UserKnownHostsFile": self.image.known_hosts,
            "HostKeyAlias": NAME,
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "60",
        }
        options = [part for key, value in says.items() for part in ("-o", f"{key}={value}")]
        reach = ("-F", "none", "-i", str(self.image.identity), "-p", str(self.port), *options, f"root@{HOST}")
        with self._log.open("ab") as log:
            return subprocess.run(
                ["ssh", *reach, shlex.join(command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                timeout=within_s,
                check=False,
            )
