"""``python -m tests.qemu.debian``: what the whole-device test needs, made once and kept.

A Debian arm64 root filesystem (debootstrap, both stages, the second one under QEMU) as a tar, and the wheelhouse of
`roadcast flash wheels`. Kept below ``build/qemu``, or ``$ROADCAST_QEMU_CACHE``; each part is complete or not there, so
a run that was cut off goes on with the first one that is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from devices.provision.wheels import pins_for, target_of
from edge_protocol.errors import NotReadyError, RoadcastError

ROOT = Path(__file__).resolve().parents[2]
SUITE, PYTHON, BOARD = "bookworm", "3.11", "raspberry-pi-5"
PROCESSOR = "QEMU_CPU=cortex-a76"
"""That of the board; QEMU's own choice has every extension, and no board has."""
PACKAGES = "python3,python3-venv,ca-certificates,systemd-sysv"
TRAINING = ("torch==2.10.0", "sympy", "networkx", "jinja2", "filelock", "fsspec", "mpmath", "markupsafe")
"""Torch 2.10 is the last one seen whose aarch64 wheel is for CPUs; 2.13's does not load without CUDA's libraries."""
TOOLS = {
    "debootstrap": "debootstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "nsenter": "util-linux",
    "mosquitto": "mosquitto",
}
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MAGIC = rb":qemu-aarch64:M::\x7fELF\x02\x01\x01" + rb"\x00" * 9 + rb"\x02\x00\xb7\x00:"
_MASK = rb"\xff" * 7 + rb"\x00" + rb"\xff" * 8 + rb"\xfe\xff\xff\xff:"


def cache() -> Path:
    """The folder in which everything is kept."""
    return Path(os.environ.get("ROADCAST_QEMU_CACHE") or ROOT / "build" / "qemu")


def prepare(also: Mapping[str, str]) -> None:
    """Have this machine run aarch64 programs.

    Args:
        also: more tools that are needed, and the package of each.

    Raises:
        NotReadyError: not root, or a tool is missing.
    """
    if os.geteuid() != 0:
        raise NotReadyError("a root filesystem and namespaces take root: sudo make qemu")
    missing = sorted({package for tool, package in ({**TOOLS, **also}).items() if shutil.which(tool) is None})
    if missing:
        raise NotReadyError(f"missing: apt-get install {' '.join(missing)}")
    if not (_BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", str(_BINFMT)], check=True)
    if not (_BINFMT / "qemu-aarch64").exists():
        (_BINFMT / "register").write_bytes(_MAGIC + _MASK + f"{shutil.which('qemu-aarch64-static')}:F".encode())


def root_filesystem() -> Path:
    """The tar of the root filesystem, made when it is missing: about ten minutes on two busy cores."""
    made = cache() / f"{SUITE}-arm64.tar"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    tree, first = cache() / "tree", cache() / "first-stage"
    if not first.exists():
        shutil.rmtree(tree, ignore_errors=True)
        run("debootstrap", "--arch=arm64", "--foreign", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree)
        first.touch()
    run_below(tree, "/debootstrap/debootstrap", "--second-stage")
    run_below(tree, "apt-get", "clean")
    beside = made.with_suffix(".part")
    run("tar", "--one-file-system", "--numeric-owner", "-C", tree, "-cf", beside, ".")
    beside.replace(made)
    first.unlink()
    shutil.rmtree(tree)
    return made


def wheelhouse() -> Path:
    """A folder with every wheel that the board needs; ours is built anew from the source, the others are kept."""
    folder = cache() / "wheels"
    command = [sys.executable, "-m", "roadcast", "flash", "wheels", "--board", BOARD, "--python", PYTHON]
    command += ["--out", str(folder)]
    offline = [*command, "--find-links", str(folder), "--offline"]
    for attempt in ([offline] if (folder / "requirements.txt").exists() else []) + [command]:
        if subprocess.run(attempt, stdout=subprocess.DEVNULL, check=False).returncode == 0:
            return folder
    raise NotReadyError(f"no wheelhouse in {folder}; pip says why above")


def training_wheels() -> list[Path]:
    """What training adds, in files: torch for CPUs and what it imports, the others at our versions."""
    folder = cache() / "training"
    if not (folder / "complete").exists():
        pinned = re.sub(r"(?m)^torch==.*\n", "", pins_for((ROOT / "constraints.txt").read_text("utf-8"), PYTHON))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pins").write_text(pinned)
        platforms = [f"--platform={tag}" for tag in target_of(BOARD, None, PYTHON).platforms]
        command = ["download", "--no-deps", "--only-binary=:all:", "--python-version", PYTHON, *platforms]
        run(sys.executable, "-m", "pip", *command, "--constraint", folder / "pins", "--dest", folder, *TRAINING)
        (folder / "complete").touch()
    return sorted(folder.glob("*.whl"))


def unpack(tar: Path, root: Path) -> Path:
    """Make a root filesystem out of the tar, owners and modes as they were."""
    root.mkdir(parents=True)
    run("tar", "--numeric-owner", "-C", root, "-xpf", tar)
    return root


def run_below(tree: Path, *command: str) -> None:
    """Run an aarch64 program to its end with a tree as its root; what it leaves running ends with it."""
    says = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
    clean = ("env", "-i", *says, PROCESSOR)
    run("unshare", "--mount", "--pid", "--fork", "--kill-child", *clean, "chroot", tree, *command)


def run(*command: object) -> None:
    """Run a program of this machine to its end; it must succeed."""
    subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=True)


def made_or_why_not(also: Mapping[str, str], make: Callable[[], tuple[Path, ...]]) -> int:
    """Make what is missing; say where it lies, or what this machine lacks. Returns the exit code."""
    try:
        prepare(also)
        made = make()
    except RoadcastError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write("".join(f"{path}\n" for path in made))
    return 0


if __name__ == "__main__":
    raise SystemExit(made_or_why_not({}, lambda: (root_filesystem(), wheelhouse())))
