"""What an earlier plan left: named by its list, taken away by every way, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.provision import rootfs
from devices.provision.changes import Change
from devices.provision.image import carry_out as into_image
from devices.provision.leftovers import left_over, named
from devices.provision.plan import INSTALLED, Plan, PlannedFile, make_plan
from devices.provision.site import CameraMatch, InstallConfig
from edge_protocol.errors import StoreError
from edge_protocol.identity.token import EnrolmentToken
from tests.fakes.sshd import SKIP_REASON, Sshd
from tests.fakes.target import contents, flash, tools_path

TREE: dict[str, Any] = {"fleet": "city", "device": "cam-1", "state_dir": "/var/lib/roadcast"}
IDENTITY = {f"{what}_file": f"/var/lib/roadcast/{what}.pem" for what in ("ca", "cert", "key")}
TOKEN = EnrolmentToken("cam-1", "https://mq.example:8443", bytes(32), bytes(32)).text()
CarryOut = Callable[[Plan, Path], tuple[Change, ...]]


def _plans() -> tuple[Plan, Plan]:
    """A device with everything, and the same one with other wheels and with most of it taken out of the site."""
    cameras = {"road": CameraMatch(serial="A1")}
    full = InstallConfig(wheels="wheels", power_mode="15W", cameras=cameras)
    first = make_plan({**TREE, "broker": IDENTITY}, full, {}, {"roadcast-1-py3-none-any.whl": b"one"}, TOKEN)
    second = make_plan(TREE, InstallConfig(wheels="wheels"), {}, {"roadcast-1-py3-none-any.whl": b"two"})
    return first, second


def _paths(plan: Plan) -> set[str]:
    return {file.path[1:] for file in plan.files} | {link.path[1:] for link in plan.links}


@pytest.fixture(name="tree")
def blank_tree(tmp_path: Path) -> Path:
    """A root filesystem with somebody else's unit, rule and wheel in it, and none of ours."""
    theirs = ("etc/systemd/system/theirs.service", "etc/udev/rules.d/70-theirs.rules", "usr/bin/python3")
    for name in (*theirs, "usr/lib/systemd/systemd", "opt/roadcast/notes"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text("theirs")
    return tmp_path / "root"


def _check(tree: Path, carry_out: CarryOut) -> None:
    """Carry one plan out, then the other: what lies there is what was there before, and the other plan."""
    first, second = _plans()
    theirs = set(contents(tree))
    carry_out(first, tree)
    assert set(contents(tree)) - {"etc/.roadcast-receipt"} == theirs | _paths(first)
    gone = {change.path for change in carry_out(second, tree) if change.action == "remove"}
    assert {f"/{path}" for path in _paths(first) - _paths(second)} == {path for path in gone if path[-1] != "/"}
    assert set(contents(tree)) - {"etc/.roadcast-receipt"} == theirs | _paths(second)
    assert len(list(tree.glob("opt/roadcast/wheels-*"))) == 1
    assert {change.action for change in carry_out(second, tree)} == {"keep"}


def test_a_tree_holds_the_last_plan_and_what_was_there(tree: Path) -> None:
    """Wheels, power mode, cameras' names, renewal and enrolment of the plan before go."""
    _check(tree, rootfs.carry_out)


@pytest.fixture(name="sshd", scope="module")
def started_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A started server."""
    if SKIP_REASON:
        pytest.skip(SKIP_REASON)
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as server:
        yield server


def test_a_running_board_holds_the_last_plan_and_what_was_there(sshd: Sshd, tree: Path) -> None:
    """The same over SSH."""
    _check(tree, lambda plan, root: flash(sshd, root, plan))


@pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)
def test_a_removal_comes_back_when_a_later_step_fails(tree: Path, tmp_path: Path) -> None:
    """Over SSH all is as before when a file cannot be put into its place."""
    first, second = _plans()
    rootfs.carry_out(first, tree)
    before = contents(tree)
    fails = 'case "$*" in *-old*) ;; *installed) exit 1 ;; esac\nexec /usr/bin/mv "$@"'
    with Sshd(tmp_path / "sshd", tools_path(tmp_path / "bin", mv=fails)) as sshd:
        with pytest.raises(StoreError, match="cannot be replaced"):
            flash(sshd, tree, second)
        assert contents(tree) == before


@pytest.mark.skipif(not all(map(shutil.which, ("mke2fs", "debugfs"))), reason="no e2fsprogs here")
def test_an_image_holds_the_last_plan_and_what_was_there(tree: Path, tmp_path: Path) -> None:
    """The same in an ext4 filesystem, read back by e2fsprogs."""
    first, second = _plans()
    image = tmp_path / "card.img"
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(image), "8M"], check=True, capture_output=True, timeout=60
    )
    into_image(first, image)
    gone = {change.path for change in into_image(second, image) if change.action == "remove"}
    assert {f"/{path}" for path in _paths(first) - _paths(second)} == {path for path in gone if path[-1] != "/"}
    assert {change.action for change in into_image(second, image)} == {"keep"}
    (tmp_path / "read").mkdir()
    subprocess.run(["debugfs", "-R", f"rdump / {tmp_path / 'read'}", str(image)], check=True, capture_output=True)
    assert set(contents(tmp_path / "read")) == set(contents(tree)) | _paths(second)


@pytest.mark.parametrize("way", ["tree", "ssh"])
def test_a_token_is_brought_once(way: str, tree: Path, request: pytest.FixtureRequest) -> None:
    """The device throws it away when it is enrolled: that is no difference; another token is."""
    carry_out: CarryOut = rootfs.carry_out
    if way == "ssh":
        server: Sshd = request.getfixturevalue("sshd")
        carry_out = lambda plan, root: flash(server, root, plan)  # noqa: E731  one of two
    other = EnrolmentToken("cam-1", "https://mq.example:8443", bytes(32), b"s" * 32).text()
    plans = [make_plan({**TREE, "broker": IDENTITY}, InstallConfig(), {}, {}, token) for token in (TOKEN, other)]
    carry_out(plans[0], tree)
    (secret,) = (tree / "etc/roadcast").glob("token-*")
    secret.unlink()
    assert {change.action for change in carry_out(plans[0], tree)} == {"keep"}
    assert not secret.exists()
    carry_out(plans[1], tree)
    assert len(list((tree / "etc/roadcast").glob("token-*"))) == 1


def test_somebody_else_s_file_keeps_the_folder(tree: Path) -> None:
    """What was put beside our wheels stays, in its folder."""
    first, second = _plans()
    rootfs.carry_out(first, tree)
    (folder,) = tree.glob("opt/roadcast/wheels-*")
    (folder / "notes").write_text("theirs")
    rootfs.carry_out(second, tree)
    assert [path.name for path in folder.iterdir()] == ["notes"]


def test_a_device_from_before_there_were_lists_keeps_everything(tree: Path) -> None:
    """No list names it, so nothing is removed."""
    first, second = _plans()
    rootfs.carry_out(first, tree)
    (tree / INSTALLED[1:]).unlink()
    assert not any(change.action == "remove" for change in rootfs.carry_out(second, tree))


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_whatever_a_list_says_only_paths_below_the_root_are_named(listed: bytes) -> None:
    """None that climbs, none without a name, and never one of the plan's own."""
    plan = Plan((PlannedFile(INSTALLED, b""), PlannedFile("/etc/a", b"")), ())
    for path in left_over(plan, listed + b"\n/etc/a\n/../b\n/etc/\n//c\n/usr/lib/roadcast/installed\n"):
        assert path in named(listed)
        assert path.startswith("/")
        assert not {"", ".", ".."} & set(path.strip("/").split("/"))
        assert path not in {"/etc/a", "/etc/", INSTALLED}
