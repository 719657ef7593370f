"""What a whole machine boots from: the Debian of `debian` with kernel, network and an SSH server, as a disk image.

Made once and kept beside the rest, complete or not at all.
"""

from __future__ import annotations

import base64
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.qemu.debian import SUITE, cache, made_or_why_not, root_filesystem, run, run_below, unpack, wheelhouse

PACKAGES = ("linux-image-cloud-arm64", "initramfs-tools", "openssh-server", "udev", "dbus")
TOOLS = {"qemu-system-aarch64": "qemu-system-arm", "ssh": "openssh-client", "mkfs.ext4": "e2fsprogs"}
NAME, MIB = "board", 3072
_INITRD = "virtio_pci\nvirtio_blk\nvirtio_net\n"
_WIRED = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n"
_FSTAB = "/dev/vda / ext4 errors=remount-ro 0 1\n"


@dataclass(frozen=True)
class SystemImage:
    """A machine's disk before it is flashed, and what is needed to start it and to log in as root.

    Attributes:
        folder: with the five files.
    """

    folder: Path

    @property
    def disk(self) -> Path:
        """One ext4, without a partition table; sparse."""
        return self.folder / "disk.img"

    @property
    def kernel(self) -> Path:
        """Debian's kernel for virtual machines."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Debian's initramfs with virtio's drivers only."""
        return self.folder / "initrd.img"

    @property
    def identity(self) -> Path:
        """Private key of root's login."""
        return self.folder / "identity"

    @property
    def known_hosts(self) -> Path:
        """The machine's host key, under the name `NAME`."""
        return self.folder / "known_hosts"

    def fingerprint(self) -> str:
        """Of the host key, as a site names it."""
        key = base64.b64decode(self.known_hosts.read_text().split()[2])
        return f"SHA256:{base64.b64encode(sha256(key).digest()).decode().rstrip('=')}"


def system_image() -> SystemImage:
    """The image, made when it is missing: about ten minutes on two busy cores, besides the root filesystem."""
    made = cache() / f"{SUITE}-arm64-system"
    if not made.exists():
        tree, work = cache() / "system-tree", made.with_name("system-work")
        for left in (tree, work):
            shutil.rmtree(left, ignore_errors=True)
        work.mkdir(mode=0o700, parents=True)
        _furnish(unpack(root_filesystem(), tree))
        _take_out(tree, SystemImage(work))
        work.rename(made)
        shutil.rmtree(tree)
    return SystemImage(made)


def _furnish(tree: Path) -> None:
    for name, says in {
        "etc/initramfs-tools/conf.d/board": "MODULES=list\n",
        "usr/share/initramfs-tools/modules.d/board": _INITRD,
        "etc/systemd/network/wired.network": _WIRED,
        "etc/fstab": _FSTAB,
        "etc/hostname": f"{NAME}\n",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(says)
    run_below(tree, "apt-get", "--quiet", "update")
    run_below(tree, "apt-get", "--quiet", "--yes", "--no-install-recommends", "install", *PACKAGES)
    run_below(tree, "systemctl", "enable", "systemd-networkd")
    run_below(tree, "systemctl", "disable", "apt-daily.timer", "apt-daily-upgrade.timer")
    run_below(tree, "apt-get", "clean")


def _take_out(tree: Path, image: SystemImage) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "root", "-f", image.identity)
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(image.identity.with_suffix(".pub"), tree / "root/.ssh/authorized_keys")
    kind, key, *_ = (tree / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
    image.known_hosts.write_text(f"{NAME} {kind} {key}\n")
    for pattern, place in {"vmlinuz-*": image.kernel, "initrd.img-*": image.initrd}.items():
        (found,) = (tree / "boot").glob(pattern)
        shutil.copy(found, place)
    run("mkfs.ext4", "-q", "-F", "-L", "rootfs", "-d", tree, image.disk, f"{MIB}M")


if __name__ == "__main__":
    raise SystemExit(made_or_why_not(TOOLS, lambda: (system_image().folder, wheelhouse())))
