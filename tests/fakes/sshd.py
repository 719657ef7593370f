"""A real ``sshd`` on loopback, with its own configuration, host keys and authorized keys; nothing of this machine's."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import asyncssh

from devices.closing import Closing
from devices.provision.connection import Login
from devices.provision.site import SshConfig

PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SKIP_REASON = (
    "no sshd here: apt-get install openssh-server"
    if PROGRAM is None
    else "needs root: what is flashed belongs to root"
    if os.geteuid() != 0
    else ""
)
"""Why tests with it are skipped here; empty when they run."""

HOST_KEYS = ("ssh-rsa", "ecdsa-sha2-nistp256", "ssh-ed25519")


class Sshd(Closing):
    """Serves this user until `close`.

    Args:
        folder: of its files; made.
        path: PATH of what it starts, in place of the usual.

    Attributes:
        port: where it listens on loopback.
        fingerprint: of its host key of the kind Ed25519.
        fingerprints: of each of its host keys; three kinds, as Debian's package makes them.
        login: with a key that it takes, and a known_hosts file that holds its host key of the kind Ed25519.
    """

    def __init__(self, folder: Path, path: str | None = None) -> None:
        assert PROGRAM is not None
        folder.mkdir(parents=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # its package makes it when the service starts
        host_keys = {kind: asyncssh.generate_private_key(kind) for kind in HOST_KEYS}
        for kind, key in host_keys.items():
            key.write_private_key(str(folder / kind))
            (folder / kind).chmod(0o600)
        user_key = asyncssh.generate_private_key("ssh-ed25519")
        user_key.write_private_key(str(folder / "user_key"))
        user_key.write_public_key(str(folder / "authorized_keys"))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.fingerprints = {kind: key.get_fingerprint() for kind, key in host_keys.items()}
        self.fingerprint = self.fingerprints["ssh-ed25519"]
        self.login = Login(folder / "known_hosts", folder / "user_key")
        public = host_keys["ssh-ed25519"].export_public_key().decode().strip()
        self.login.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public}\n")
        config = folder / "sshd_config"
        config.write_text("".join(f"{line}\n" for line in self._config(folder, path)))
        self._process = subprocess.Popen([PROGRAM, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
        self._wait()

    def target(self, **changes: object) -> SshConfig:
        """Where it is reached; with its fingerprint pinned when asked."""
        values: dict[str, object] = {"host": "127.0.0.1", "port": self.port, "user": getpass.getuser(), **changes}
        return SshConfig(**values)  # type: ignore[arg-type]

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()

    def _config(self, folder: Path, path: str | None) -> Iterable[str]:
        yield f"Port {self.port}"
        yield "ListenAddress 127.0.0.1"
        for kind in HOST_KEYS:
            yield f"HostKey {folder / kind}"
        yield f"AuthorizedKeysFile {folder / 'authorized_keys'}"
        yield "PidFile none"
        yield "StrictModes no"
        yield "UsePAM no"
        yield "PasswordAuthentication no"
        yield "PermitRootLogin yes"
        yield "MaxStartups 100"
        yield f"SetEnv HOME={folder}" + ("" if path is None else f" PATH={path}")  # not this user's .bashrc

    def _wait(self) -> None:
        until = time.monotonic() + 20
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", self.port)) != 0:
                if time.monotonic() > until or self._process.poll() is not None:
                    self.close()
                    raise RuntimeError("sshd does not listen")
                time.sleep(0.02)
