"""A plan carried out in a tree: once, twice, over what is wrong, and never outside of it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.provision.plan import Plan, PlannedFile, PlannedLink
from devices.provision.rootfs import carry_out
from edge_protocol.errors import ConfigError, NotReadyError, RoadcastError, StoreError

FILE = PlannedFile("/etc/systemd/system/x.service", b"[Service]\nType=notify\n")
SECRET = PlannedFile("/etc/roadcast/key.pem", b"secret", 0o640)
LINK = PlannedLink("/etc/systemd/system/multi-user.target.wants/x.service", "/etc/systemd/system/x.service")
PLAN = Plan((FILE, SECRET), (LINK,))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An empty root filesystem tree, beside a file that must stay as it is."""
    (tmp_path / "rootfs" / "etc").mkdir(parents=True)
    (tmp_path / "outside").write_text("untouched")
    return tmp_path / "rootfs"


def _snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder with inode, time, mode and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (status.st_ino, status.st_mtime_ns, status.st_mode, content)
    return found


def test_a_plan_is_carried_out(tree: Path) -> None:
    """Files with content and mode, the link, and nothing left beside them."""
    assert [change.action for change in carry_out(PLAN, tree)] == ["add"] * 3
    assert (tree / "etc/systemd/system/x.service").read_bytes() == FILE.content
    assert (tree / "etc/roadcast/key.pem").stat().st_mode & 0o777 == 0o640
    assert str((tree / LINK.path[1:]).readlink()) == LINK.target
    assert not list(tree.rglob(".*"))


def test_a_second_run_writes_nothing(tree: Path) -> None:
    """Not a byte, not a time, not an inode is different after it."""
    carry_out(PLAN, tree)
    before = _snapshot(tree)
    assert [change.action for change in carry_out(PLAN, tree)] == ["keep"] * 3
    assert _snapshot(tree) == before


def test_what_is_wrong_is_mended_and_the_rest_left(tree: Path) -> None:
    """Content, mode and link that were changed come back; the diff shows it, but never a secret."""
    carry_out(PLAN, tree)
    (tree / "etc/systemd/system/x.service").write_text("[Service]\nType=simple\n")
    (tree / "etc/roadcast/key.pem").chmod(0o644)
    (tree / LINK.path[1:]).unlink()
    (tree / LINK.path[1:]).symlink_to("/dev/null")
    unit, secret, link = carry_out(PLAN, tree)
    assert [unit.action, secret.action, link.action] == ["change"] * 3
    assert "-Type=simple\n+Type=notify" in unit.diff
    assert secret.diff == ""
    assert [change.action for change in carry_out(PLAN, tree)] == ["keep"] * 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away and back")
def test_what_a_run_without_root_wrote_becomes_root_s(tree: Path) -> None:
    """Its owner is wrong on the device; a secret's group, which the device sets at its boot, is left."""
    carry_out(PLAN, tree)
    unit, secret = tree / FILE.path[1:], tree / SECRET.path[1:]
    os.chown(unit, 1000, 1000)
    os.chown(secret, 0, 999)
    assert [change.action for change in carry_out(PLAN, tree, dry_run=True)] == ["change", "keep", "keep"]
    assert [change.action for change in carry_out(PLAN, tree)] == ["change", "keep", "keep"]
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (unit, secret)] == [(0, 0), (0, 999)]


def test_two_runs_do_not_mix(tree: Path) -> None:
    """While one writes into a tree another is refused, and may look."""
    other = os.open(tree, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(NotReadyError, match="another flash runs on this folder"):
        carry_out(PLAN, tree)
    assert not (tree / "etc/roadcast").exists()
    assert [change.action for change in carry_out(PLAN, tree, dry_run=True)] == ["add"] * 3
    os.close(other)
    assert [change.action for change in carry_out(PLAN, tree)] == ["add"] * 3


def test_a_dry_run_says_the_same_and_writes_nothing(tree: Path) -> None:
    """What it announces is what the run then does."""
    before = _snapshot(tree)
    announced = carry_out(PLAN, tree, dry_run=True)
    assert _snapshot(tree) == before
    assert announced == carry_out(PLAN, tree)


def test_a_run_that_was_cut_off_is_finished_by_the_next(tree: Path) -> None:
    """A half-written file beside its place is thrown away."""
    (tree / "etc/roadcast").mkdir()
    (tree / "etc/roadcast/.key.pem.roadcast").write_text("ha")
    carry_out(PLAN, tree)
    assert [path.name for path in (tree / "etc/roadcast").iterdir()] == ["key.pem"]


@pytest.mark.parametrize("path", ["/../outside", "/etc/../../outside", "etc/x", "/", "/etc/.."])
def test_a_path_that_leaves_the_tree_is_refused(path: str, tree: Path) -> None:
    """Before anything is written."""
    for plan in (Plan((FILE, PlannedFile(path, b"x")), ()), Plan((FILE,), (PlannedLink(path, "x"),))):
        with pytest.raises(ConfigError, match="no file below the tree"):
            carry_out(plan, tree)
    assert not (tree / "etc/systemd").exists()
    assert (tree.parent / "outside").read_text() == "untouched"


@pytest.mark.parametrize("target", ["{outside}", "/etc", "../..", "roadcast"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_no_link_in_the_tree_is_followed(target: str, dry_run: bool, tree: Path) -> None:
    """A folder that is a link, to wherever, stops the run; the host keeps its files."""
    (tree / "etc/roadcast").symlink_to(target.format(outside=tree.parent))
    with pytest.raises(StoreError, match="none is followed"):
        carry_out(Plan((PlannedFile("/etc/roadcast/outside", b"pwned"),), ()), tree, dry_run=dry_run)
    assert (tree.parent / "outside").read_text() == "untouched"


def test_a_file_that_is_a_link_is_not_written_through(tree: Path) -> None:
    """Neither is its target changed."""
    (tree / "etc/roadcast").mkdir()
    (tree / "etc/roadcast/key.pem").symlink_to(tree.parent / "outside")
    with pytest.raises(StoreError, match="none is followed"):
        carry_out(Plan((SECRET,), ()), tree)
    assert (tree.parent / "outside").read_text() == "untouched"


def test_things_in_the_way_are_named(tree: Path) -> None:
    """A file where a folder should be, a folder where a file or a link should be, a FIFO."""
    (tree / "etc/roadcast").write_text("a file")
    with pytest.raises(StoreError, match=r"/etc/roadcast/key\.pem"):
        carry_out(Plan((SECRET,), ()), tree)
    (tree / "etc/systemd/system/x.service").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"x\.service"):
        carry_out(Plan((FILE,), ()), tree)
    (tree / LINK.path[1:]).mkdir(parents=True)
    with pytest.raises(StoreError, match="no link is in the way"):
        carry_out(Plan((), (LINK,)), tree)
    os.mkfifo(tree / "etc/fifo")
    with pytest.raises(StoreError, match="no file is in the way"):
        carry_out(Plan((PlannedFile("/etc/fifo", b"x"),), ()), tree)


def test_this_machine_is_not_flashed(tmp_path: Path) -> None:
    """Neither by its name nor through a link, and a folder that is no root filesystem is none."""
    (tmp_path / "link").symlink_to("/")
    for root in (Path("/"), tmp_path / "link"):
        with pytest.raises(ConfigError, match="root of this machine"):
            carry_out(PLAN, root, dry_run=True)
    with pytest.raises(ConfigError, match="has no etc"):
        carry_out(PLAN, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_a_second_mount_of_this_machine_is_not_flashed(tmp_path: Path) -> None:
    """A bind mount of / has another name and is the same folder."""
    mounted = subprocess.run(["mount", "--bind", "/", str(tmp_path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(ConfigError, match="root of this machine"):
            carry_out(PLAN, tmp_path, dry_run=True)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


PARTS = st.sampled_from(["etc", "a", "b", "..", ".", "", "link", "up", "file"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.lists(PARTS, min_size=1, max_size=5).map("/".join), rooted=st.booleans())
def test_no_path_gets_out(path: str, rooted: bool, tree: Path) -> None:
    """Whatever the path and the links on its way, nothing outside of the tree changes, and no other error escapes."""
    for name, target in {"link": "/", "up": ".."}.items():
        if not (tree / name).is_symlink():
            (tree / name).symlink_to(target)
    (tree / "file").touch()
    before = {path.name for path in tree.parent.iterdir()}
    with suppress(RoadcastError):
        carry_out(Plan((PlannedFile(f"{'/' * rooted}{path}", b"x"),), ()), tree)
    assert {path.name for path in tree.parent.iterdir()} == before
    assert (tree.parent / "outside").read_text() == "untouched"
    assert not [name for name in ("/a", "/b", "/file") if Path(name).exists()]
