"""A plan carried out in a disk image: read back by other tools, and never in the wrong place or half."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from devices.provision.image import carry_out
from devices.provision.plan import Plan, PlannedFile, PlannedLink
from devices.provision.programs import Programs
from edge_protocol.errors import ConfigError, DataError, NotReadyError, RoadcastError, StoreError
from tests.fakes import images
from tests.fakes.images import BOOT, MIB, OTHER, ROOT, Inside, disk_image, layout, make_ext4, partition_of, tool
from tests.fakes.target import tools_path

pytestmark = pytest.mark.skipif(bool(images.SKIP_REASON), reason=images.SKIP_REASON)

UNIT = PlannedFile("/etc/systemd/system/x.service", b"[Service]\nType=notify\n")
SECRET = PlannedFile("/etc/roadcast/secrets/key.pem", b"secret", 0o640)
WHEEL = PlannedFile("/opt/roadcast/wheels-1/a_b-1.0+local.1-py3-none-any.whl", os.urandom(300_000))
EMPTY = PlannedFile("/opt/roadcast/wheels-1/empty", b"")
LINK = PlannedLink("/etc/systemd/system/multi-user.target.wants/x.service", "/etc/systemd/system/x.service")
LONG = PlannedLink("/etc/long", "/" + "x" * 90)
PLAN = Plan((UNIT, SECRET, WHEEL, EMPTY), (LINK, LONG))


def _inside(image: Path, number: int) -> Inside:
    return Inside(image, layout(image)[number - 1]["start"] * 512)


def _state(image: Path) -> tuple[object, ...]:
    """Everything that a write would change: the file's identity, times and content, and what lies beside it."""
    status = image.stat()
    beside = sorted(path.name for path in image.parent.iterdir())
    return status.st_ino, status.st_mtime_ns, sha256(image.read_bytes()).hexdigest(), beside


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_an_image_is_flashed_and_read_back_by_other_tools(label: str, tmp_path: Path) -> None:
    """Every file with its bytes, mode and owner, the links, a whole filesystem; the boot partition as it was."""
    image = disk_image(tmp_path / "card ?.img", [(BOOT, 4), (ROOT, 16)], label=label)
    image.chmod(0o644)
    boot = partition_of(image, 1)
    assert {change.action for change in carry_out(PLAN, image)} == {"add"}
    image = image.rename(tmp_path / "plain.img")  # debugfs itself would take the question mark for an option
    inside = _inside(image, 2)
    for file in PLAN.files:
        assert inside.read(file.path) == file.content
        assert inside.facts(file.path) == (f"100{file.mode:o}", "0", "0")
    assert inside.facts("/etc/roadcast/secrets") == ("040755", "0", "0")
    assert inside.target(LINK.path) == LINK.target
    inside.check()
    assert (partition_of(image, 1), inside.read("/etc/hostname")) == (boot, b"board\n")
    offset = layout(image)[0]["start"] * 512
    assert tool("mtype", "-i", f"{image}@@{offset}", "::config.txt") == b"arm_64bit=1\n"
    assert image.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [image]


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    """The image is the same file, with the same times and bytes, and nothing lies beside it; nor after a dry run."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    before = _state(image)
    announced = carry_out(PLAN, image, dry_run=True)
    assert _state(image) == before
    assert announced == carry_out(PLAN, image)
    before = _state(image)
    assert {change.action for change in carry_out(PLAN, image)} == {"keep"}
    assert _state(image) == before


def test_what_is_wrong_is_mended_and_shown(tmp_path: Path) -> None:
    """Content, mode, owner and links that were changed come back; the diff shows it, but never a secret."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    carry_out(PLAN, image)
    offset = layout(image)[0]["start"] * 512
    (tmp_path / "other").write_text("[Service]\nType=simple\n")
    orders = ["rm /etc/systemd/system/x.service", "cd /etc/systemd/system", f"write {tmp_path}/other x.service"]
    orders += ["sif /etc/roadcast/secrets/key.pem mode 0100644", "sif /opt/roadcast/wheels-1/empty uid 1000"]
    orders += ["rm /etc/long", "symlink /etc/long /dev/null"]
    (tmp_path / "orders").write_text("\n".join(orders))
    tool("debugfs", "-w", "-f", str(tmp_path / "orders"), f"{image}?offset={offset}")
    unit, secret, wheel, empty, link, long = carry_out(PLAN, image)
    assert [unit.action, secret.action, empty.action, long.action] == ["change"] * 4
    assert [wheel.action, link.action] == ["keep"] * 2
    assert "-Type=simple\n+Type=notify" in unit.diff
    assert secret.diff == ""
    assert {change.action for change in carry_out(PLAN, image)} == {"keep"}
    _inside(image, 1).check()


def test_of_two_roots_one_must_be_named(tmp_path: Path) -> None:
    """Slots A and B: refused with a list of all, then only the named one is written."""
    image = disk_image(tmp_path / "ab.img", [(ROOT, 8), (BOOT, 2), (ROOT, 8), (OTHER, 4)])
    before = _state(image)
    with pytest.raises(ConfigError, match=r"2 root filesystems.*--partition N.*1: ext4 'rootfs'.*2: FAT 'BOOT'"):
        carry_out(PLAN, image)
    for wrong, says in {2: "no ext4 partition", 9: "no ext4 partition", 4: "no etc and usr"}.items():
        with pytest.raises(ConfigError, match=says):
            carry_out(PLAN, image, partition=wrong)
    assert _state(image) == before
    others = [partition_of(image, number) for number in (1, 2, 4)]
    carry_out(PLAN, image, partition=3)
    assert [partition_of(image, number) for number in (1, 2, 4)] == others
    assert _inside(image, 3).read(SECRET.path) == b"secret"


def test_a_label_does_not_make_a_root(tmp_path: Path) -> None:
    """An ext4 that is called rootfs and holds none is not written into, and the list says what there is."""
    image = disk_image(tmp_path / "data.img", [(BOOT, 2), (OTHER, 8)])
    before = _state(image)
    with pytest.raises(ConfigError, match=r"no ext4 root filesystem.*2: ext4 'rootfs'"):
        carry_out(PLAN, image)
    assert _state(image) == before


def test_a_bare_filesystem_is_an_image(tmp_path: Path) -> None:
    """As balena's and Yocto's builds leave it, without a partition table; and put elsewhere on demand."""
    image, out = tmp_path / "root.ext4", tmp_path / "out.ext4"
    make_ext4(image, 0, 16)
    before = sha256(image.read_bytes()).digest()
    carry_out(PLAN, image, out=out)
    assert sha256(image.read_bytes()).digest() == before
    assert out.stat().st_mode & 0o777 == 0o600
    assert Inside(out).read(WHEEL.path) == WHEEL.content
    Inside(out).check()
    carry_out(PLAN, out, out=tmp_path / "copy.ext4")
    assert (tmp_path / "copy.ext4").read_bytes() == out.read_bytes()


def test_an_image_taken_from_a_running_board_is_refused(tmp_path: Path) -> None:
    """Its journal would be played back over what we write; the message has the command that helps, and it does."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    at = f"{image}?offset={layout(image)[0]['start'] * 512}"
    tool("debugfs", "-w", "-R", "feature needs_recovery", at)
    before = _state(image)
    with pytest.raises(StoreError, match="mounting it once") as refused:
        carry_out(PLAN, image)
    assert _state(image) == before
    (tmp_path / "mnt").mkdir()
    command = str(refused.value).partition("as root: ")[2].replace("/mnt", str(tmp_path / "mnt"))
    if os.geteuid() == 0 and subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == 0:
        carry_out(PLAN, image)


def test_a_damaged_filesystem_is_left_alone(tmp_path: Path) -> None:
    """A link count that is wrong: found by e2fsck before anything takes the image's place."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    at = f"{image}?offset={layout(image)[0]['start'] * 512}"
    tool("debugfs", "-w", "-R", "sif /etc/hostname links_count 7", at)
    before = _state(image)
    with pytest.raises(StoreError, match="has errors"):
        carry_out(PLAN, image)
    assert _state(image) == before


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("symlink /etc/roadcast /usr", "none is followed"),
        ("mkdir /etc/systemd/system/x.service", "no file is in the way"),
        ("mkdir /etc/long", "no link is in the way"),
        ("symlink /etc/systemd/system/x.service /etc/hostname", "no file is in the way"),
    ],
)
def test_nothing_in_the_way_is_followed_or_replaced(order: str, says: str, tmp_path: Path) -> None:
    """A folder that is a link, a file that is a folder or a link, a link that is a folder."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    tool("debugfs", "-w", "-R", order, f"{image}?offset={layout(image)[0]['start'] * 512}")
    before = _state(image)
    with pytest.raises(StoreError, match=says):
        carry_out(PLAN, image)
    assert _state(image) == before


@pytest.mark.parametrize("path", ["/etc/../x", "/etc/a b", '/etc/"x', "/etc/<12>", "/etc/x\nrm /etc/hostname"])
def test_no_name_is_an_order(path: str, tmp_path: Path) -> None:
    """What debugfs would read as more than a name is refused."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    before = _state(image)
    with pytest.raises(ConfigError):
        carry_out(Plan((PlannedFile(path, b"x"),), ()), image)
    assert _state(image) == before


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    """Packed files, nothing, text, a device, a file that is not there."""
    (tmp_path / "x.img.xz").write_bytes(b"\xfd7zXZ\0" + bytes(4096))
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    for name, error in {"x.img.xz": DataError, "empty": ConfigError, "text": ConfigError, "none": ConfigError}.items():
        with pytest.raises(error):
            carry_out(PLAN, tmp_path / name)
    with pytest.raises(ConfigError, match="no file"):
        carry_out(PLAN, Path("/dev/null"))


def test_a_disk_that_is_full_changes_nothing(tmp_path: Path) -> None:
    """The copy cannot be finished: the image stays, and nothing is left beside it."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    before, limits = _state(image), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, limits[1]))
    try:
        with pytest.raises(StoreError):
            carry_out(PLAN, image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _state(image) == before


def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    """What it left beside the image goes; while another run is at work nothing is touched."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    left = tmp_path / ".card.img.roadcast"
    left.write_bytes(b"half" * MIB)
    before = _state(image)
    with left.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(NotReadyError, match="another run"):
            carry_out(PLAN, image)
    assert _state(image) == before
    carry_out(PLAN, image)
    assert list(tmp_path.iterdir()) == [image]
    _inside(image, 1).check()


def test_a_tool_that_writes_something_else_is_found(tmp_path: Path) -> None:
    """A debugfs that loses the orders to write and says that all is well: read back, refused, the image untouched."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    real = tool("sh", "-c", "command -v debugfs").decode().strip()
    script = f'case "$*" in *-w*) echo lost >&2; exit 0;; esac; exec {real} "$@"'
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/debugfs").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/debugfs").chmod(0o755)
    before = _state(image)
    with pytest.raises(StoreError, match="reads back differently: lost"):
        carry_out(PLAN, image, programs=Programs(f"{tmp_path / 'bin'}:{images.PATH}"))
    assert _state(image) == before


def test_without_tools_it_says_which(tmp_path: Path) -> None:
    """Neither debugfs nor mount: the package's name."""
    image = disk_image(tmp_path / "card.img", [(ROOT, 16)])
    with pytest.raises(NotReadyError, match="install e2fsprogs"):
        carry_out(PLAN, image, programs=Programs(tools_path(tmp_path / "bin")))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_root_can_mount_instead(tmp_path: Path) -> None:
    """Without e2fsprogs the image is mounted; what is in it then is the same."""
    image = disk_image(tmp_path / "card.img", [(BOOT, 2), (ROOT, 16)])
    programs = Programs(tools_path(tmp_path / "bin"))
    for name in ("mount", "umount"):
        (tmp_path / "bin" / name).symlink_to(tool("sh", "-c", f"command -v {name}").decode().strip())
    try:
        carry_out(PLAN, image, programs=programs)
    except RoadcastError as error:
        if "mount left with" in str(error):
            pytest.skip(f"nothing can be mounted here: {error}")
        raise
    inside = _inside(image, 2)
    assert (inside.read(WHEEL.path), inside.target(LINK.path)) == (WHEEL.content, LINK.target)
    inside.check()
    assert {change.action for change in carry_out(PLAN, image)} == {"keep"}
