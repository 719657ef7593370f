"""Which disks may be written over: a recorded machine, with everything that must keep one from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from devices.provision.disks import disk_of
from edge_protocol.errors import ConfigError, NotReadyError, StoreError

MOUNTS = """22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 8:33 / /media/my\\040card rw,relatime - vfat /dev/sdc1 rw
25 22 0:50 /@ /srv rw - btrfs /dev/sdd1 rw
26 22 253:0 / /data rw - ext4 /dev/mapper/vg-data rw
27 22 0:44 / /mnt rw - nfs4 server:/export rw
"""


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine with a system disk (sda), a free card (sdb), and disks in use in every other way."""

    def block(name: str, number: str, *, within: str = "", **more: str) -> None:
        folder = tmp_path / "sys/class/block" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in {"dev": number, "size": "62333952", "ro": "0", "removable": "1", **more}.items():
            (folder / file).write_text(f"{text}\n")
        if within:
            part = tmp_path / "sys/class/block" / within / name
            part.mkdir(parents=True)
            for where in (part, folder):
                (where / "partition").write_text("1\n")
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()

    for letter, minor in zip("abcdefgh", range(0, 128, 16), strict=True):
        block(f"sd{letter}", f"8:{minor}")
    for name, number in {"sda2": "8:2", "sdc1": "8:33", "sdd1": "8:49", "sde1": "8:65", "sdf1": "8:81"}.items():
        block(name, number, within=name[:3])
    block("dm-0", "253:0")
    (tmp_path / "sys/class/block/sde1/holders/dm-0").mkdir(parents=True)
    (tmp_path / "sys/class/block/sdf1/holders/md0").mkdir(parents=True)
    block("md0", "9:0")
    block("sdg", "8:96", ro="1")
    block("sdh", "8:112", size="0")
    (tmp_path / "sys/class/block/sdb/device").mkdir()
    (tmp_path / "sys/class/block/sdb/device/model").write_text("Card Reader  \n")
    (tmp_path / "dev/mapper").mkdir()
    (tmp_path / "dev/mapper/vg-data").symlink_to("../dm-0")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS)
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n")
    return tmp_path


def test_a_free_card_may_be_written(machine: Path) -> None:
    """With its size, model, and that it is removable; also through a link, as below /dev/disk/by-id."""
    (machine / "dev/card").symlink_to("sdb")
    for name in ("sdb", "card"):
        disk = disk_of(machine / "dev" / name, machine)
        assert (disk.size, disk.model, disk.removable) == (62333952 * 512, "Card Reader", True)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("sda", NotReadyError, "of this very machine"),
        ("sda2", ConfigError, "is a partition"),
        ("sdc", NotReadyError, "umount '/media/my card'"),
        ("sdd", NotReadyError, "mounted at /srv"),
        ("sde", NotReadyError, "mounted at /data"),
        ("sdf", NotReadyError, "in use by md0"),
        ("sdg", StoreError, "cannot be written"),
        ("sdh", StoreError, "no medium"),
        ("sdz", ConfigError, "lsblk"),
    ],
)
def test_others_are_refused(name: str, error: type[Exception], says: str, machine: Path) -> None:
    """The system's, a partition, mounted (by number, by btrfs' source, through LVM), RAID, locked, empty, none."""
    with pytest.raises(error, match=says):
        disk_of(machine / "dev" / name, machine)


def test_swap_is_use(machine: Path) -> None:
    """A disk with a swap partition is refused like a mounted one."""
    (machine / "proc/swaps").write_text("Filename Type Size Used Priority\n/dev/sdb partition 1 0 -2\n")
    with pytest.raises(NotReadyError, match="swapoff"):
        disk_of(machine / "dev/sdb", machine)


def test_this_machine_s_root_is_found_on_it() -> None:
    """On the machine that runs this: if the disk of / is one that it shows, it is refused."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == "/" and (found := Path("/sys/dev/block") / fields[2]).exists():
            whole = found.resolve() if not (found / "partition").exists() else found.resolve().parent
            if (Path("/dev") / whole.name).exists():
                with pytest.raises(NotReadyError):
                    disk_of(Path("/dev") / whole.name)
                return
    pytest.skip("the root of this machine lies on no disk that it shows")


def test_a_file_stands_for_a_disk(tmp_path: Path) -> None:
    """A regular file has its size; a folder, a character device and nothing are none."""
    (tmp_path / "disk").write_bytes(bytes(1000))
    assert disk_of(tmp_path / "disk").size == 1000
    for block in Path("/sys/class/block").glob("*"):
        (tmp_path / block.name).write_bytes(bytes(7))
        assert disk_of(tmp_path / block.name).size == 7  # its name is a disk's, and it is none
    for path in (tmp_path, Path("/dev/null"), tmp_path / "none"):
        with pytest.raises(ConfigError):
            disk_of(path)


def test_a_file_that_is_in_use_as_a_disk_is_refused(machine: Path) -> None:
    """Also through a link; another file is not, nor is that one once it is free again."""
    (machine / "card.img").write_bytes(bytes(512))
    (machine / "link").symlink_to("card.img")
    backing = machine / "sys/class/block/loop3/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{machine / 'card.img'}\n")
    for name in ("card.img", "link"):
        with pytest.raises(NotReadyError, match=r"in use as /dev/loop3.*losetup -d /dev/loop3"):
            disk_of(machine / name, machine)
    backing.write_text(f"{machine / 'other.img'}\n")
    assert disk_of(machine / "card.img", machine).size == 512
