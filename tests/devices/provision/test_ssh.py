"""A plan carried out over a real sshd on loopback: once, twice, cut off, refused, and taken back."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncssh
import msgspec
import pytest

from devices.provision.changes import Change
from devices.provision.plan import Plan, PlannedFile, PlannedLink
from devices.provision.ssh import Job, Login, Place, flash_all, flash_target
from edge_protocol.errors import ConfigError, NotReadyError, RoadcastError, StoreError, TransportError
from tests.fakes.proxy import Proxy
from tests.fakes.sshd import SKIP_REASON, Sshd

pytestmark = pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)

UNIT = PlannedFile("/etc/systemd/system/roadcast-agent.service", b"[Service]\nType=notify\n")
SECRET = PlannedFile("/etc/roadcast/key.pem", b"secret", 0o640)
WHEEL = PlannedFile("/opt/roadcast/wheels/it's; touch $(HOME) `x` *.whl", bytes(range(256)) * 4000)
LINK = PlannedLink("/etc/systemd/system/multi-user.target.wants/roadcast-agent.service", UNIT.path)
PLAN = Plan((UNIT, SECRET, WHEEL), (LINK,))
TOOLS = "cat chmod chown flock head id ln mkdir mv python3 readlink rm rmdir sh sha256sum stat sync true"
"""What the target's half starts."""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A started server."""
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as server:
        yield server


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What stands for the root of a target, beside a file that must stay as it is."""
    for folder in ("etc", "usr/bin", "usr/lib/systemd"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "root/usr/bin/python3").touch()
    (tmp_path / "outside").write_text("untouched")
    return tmp_path / "root"


def _flash(
    sshd: Sshd, tree: Path, plan: Plan = PLAN, *, port: int | None = None, **options: bool
) -> tuple[Change, ...]:
    target = sshd.target(port=port or sshd.port, fingerprint=sshd.fingerprint)
    place = Place(str(tree), live=options.pop("live", False))
    return asyncio.run(flash_target(target, plan, sshd.login, place, **options))


def _snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder with inode, times, mode, owner and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        facts = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_mode, status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (*facts, content)
    return found


def _contents(root: Path) -> dict[str, object]:
    """Content and mode of every file; what a rollback must bring back."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mode, path.readlink() if path.is_symlink() else path.read_bytes())
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def _tools(folder: Path, *without: str, **scripts: str) -> str:
    """A PATH of this machine's programs, without some, and with scripts in the place of others."""
    folder.mkdir()
    for name in TOOLS.split():
        found = shutil.which(name, path="/usr/bin:/bin")
        if name not in without and found is not None:
            (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_a_plan_is_carried_out_and_a_second_run_writes_nothing(sshd: Sshd, tree: Path) -> None:
    """Content, modes, owner and link; then not an inode or a time is different. A name is never run as a command."""
    assert [change.action for change in _flash(sshd, tree)] == ["add"] * 4
    for file in PLAN.files:
        status = (tree / file.path[1:]).stat()
        assert (tree / file.path[1:]).read_bytes() == file.content
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (file.mode, 0, 0)
    assert str((tree / LINK.path[1:]).readlink()) == LINK.target
    assert {path.name for path in tree.rglob(".*")} == {".roadcast-receipt"}
    before = _snapshot(tree)
    assert [change.action for change in _flash(sshd, tree)] == ["keep"] * 4
    assert _snapshot(tree) == before


def test_a_dry_run_shows_the_difference_and_writes_nothing(sshd: Sshd, tree: Path) -> None:
    """What it announces is what the run then does; a secret is not shown."""
    _flash(sshd, tree)
    (tree / UNIT.path[1:]).write_text("[Service]\nType=simple\n")
    (tree / SECRET.path[1:]).write_text("other")
    (tree / LINK.path[1:]).unlink()
    (tree / LINK.path[1:]).symlink_to("/dev/null")
    before = _snapshot(tree)
    announced = _flash(sshd, tree, dry_run=True)
    assert _snapshot(tree) == before
    assert [change.action for change in announced] == ["change", "change", "keep", "change"]
    assert "-Type=simple\n+Type=notify" in announced[0].diff
    assert announced[1].diff == ""
    assert _flash(sshd, tree) == announced
    assert {change.action for change in _flash(sshd, tree)} == {"keep"}


@pytest.mark.parametrize("wrong", ["content", "mode", "owner"])
def test_what_is_wrong_is_mended(wrong: str, sshd: Sshd, tree: Path) -> None:
    """A large file as well, although its hash is remembered under inode, size and times."""
    _flash(sshd, tree)
    wheel = tree / WHEEL.path[1:]
    status = wheel.stat()
    if wrong == "content":
        wheel.write_bytes(WHEEL.content[::-1])
        os.utime(wheel, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif wrong == "mode":
        wheel.chmod(0o666)
    else:
        os.chown(wheel, 1, 1)
    assert [change.action for change in _flash(sshd, tree)] == ["keep", "keep", "change", "keep"]
    assert wheel.read_bytes() == WHEEL.content
    assert (wheel.stat().st_mode & 0o7777, wheel.stat().st_uid) == (0o644, 0)


def test_a_run_that_was_cut_off_is_finished_by_the_next(sshd: Sshd, tree: Path) -> None:
    """The connection breaks while a large file is sent: nothing was replaced; a rerun sends only what is missing."""
    (tree / "etc/systemd/system").mkdir(parents=True)
    (tree / UNIT.path[1:]).write_text("old")
    plan = Plan((UNIT, SECRET, PlannedFile("/opt/a.whl", os.urandom(8_000_000))), (LINK,))
    target = sshd.target(fingerprint=sshd.fingerprint)
    with closing(Proxy(sshd.port)) as proxy:

        def told(state: str) -> None:
            if state.startswith("sending 2."):
                proxy.cut()

        flashing = flash_target(
            msgspec.structs.replace(target, port=proxy.port), plan, sshd.login, Place(str(tree), live=False), told=told
        )
        with pytest.raises(TransportError, match="run it again"):
            asyncio.run(flashing)
    assert (tree / UNIT.path[1:]).read_text() == "old"
    assert not (tree / SECRET.path[1:]).exists()
    assert [change.action for change in _flash(sshd, tree, plan)] == ["change", "add", "add", "add"]
    assert (tree / "opt/a.whl").read_bytes() == plan.files[2].content
    assert {path.name for path in tree.rglob(".*")} == {".roadcast-receipt"}
    assert {change.action for change in _flash(sshd, tree, plan)} == {"keep"}


def test_a_host_key_that_is_not_pinned_is_refused(sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    """Unknown, changed, or with another fingerprint: the message says which key it was; nothing is written."""
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    (tmp_path / "empty").touch()
    (tmp_path / "changed").write_text(f"[127.0.0.1]:{sshd.port} {other}")
    place = Place(str(tree), live=False)
    for file, fingerprint, says in [
        (tmp_path / "empty", None, "is unknown"),
        (tmp_path / "changed", None, "is not the one in .*changed"),
        (sshd.login.known_hosts, "SHA256:" + "a" * 43, "is not the one in site"),
        (tmp_path / "none", None, "no fingerprint in the site and no file"),
    ]:
        login = msgspec.structs.replace(sshd.login, known_hosts=file)
        with pytest.raises(NotReadyError, match=says):
            asyncio.run(flash_target(sshd.target(fingerprint=fingerprint), PLAN, login, place))
    assert list((tree / "etc").iterdir()) == []
    assert asyncio.run(flash_target(sshd.target(), PLAN, sshd.login, place))[0].action == "add"


def test_a_login_that_is_refused_and_a_dead_host_are_told_apart(sshd: Sshd, tree: Path, tmp_path: Path) -> None:
    """A key that the target does not take is for the user to mend; a port where nobody listens may be tried again."""
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "key"))
    login, place = Login(sshd.login.known_hosts, tmp_path / "key"), Place(str(tree), live=False)
    with pytest.raises(NotReadyError, match="was not let in"):
        asyncio.run(flash_target(sshd.target(), PLAN, login, place))
    with pytest.raises(ConfigError, match="is no file"):
        asyncio.run(flash_target(sshd.target(), PLAN, msgspec.structs.replace(login, identity=tmp_path / "no"), place))
    with pytest.raises(TransportError, match="no SSH connection"):
        asyncio.run(flash_target(sshd.target(port=1), PLAN, sshd.login, place))


def test_a_full_disk_leaves_the_old_state(sshd: Sshd, tree: Path) -> None:
    """On a real tmpfs of 512 KiB the wheel does not fit: the error says so, and every byte and folder is as before."""
    small = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tree)]
    if subprocess.run(small, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small tmpfs here")
    try:
        for folder in ("etc/systemd/system", "usr/bin", "usr/lib/systemd"):
            (tree / folder).mkdir(parents=True)
        (tree / "usr/bin/python3").touch()
        (tree / UNIT.path[1:]).write_text("old")
        before = _contents(tree), sorted(tree.rglob("*"))
        with pytest.raises(StoreError, match=r"No space left.*what was there before"):
            _flash(sshd, tree)
        assert (_contents(tree), sorted(tree.rglob("*"))) == before
        assert [change.action for change in _flash(sshd, tree, Plan((UNIT, SECRET), (LINK,)))] == [
            "change",
            "add",
            "add",
        ]
    finally:
        subprocess.run(["umount", str(tree)], check=True)


def test_what_was_replaced_comes_back_when_a_later_step_fails(tree: Path, tmp_path: Path) -> None:
    """The third rename fails: two files are as they were, with their inodes; a rerun on a healthy target finishes."""
    fails = 'case "$PWD $*" in *-old*) ;; *.target.wants\\ *) exit 1 ;; esac\nexec /usr/bin/mv "$@"'
    path = _tools(tmp_path / "bin", mv=fails)
    with Sshd(tmp_path / "sshd", path) as sshd:
        (tree / "etc/systemd/system").mkdir(parents=True)
        (tree / UNIT.path[1:]).write_text("old")
        inode, before = (tree / UNIT.path[1:]).stat().st_ino, _contents(tree)
        with pytest.raises(StoreError, match="cannot be replaced"):
            _flash(sshd, tree)
        assert _contents(tree) == before
        assert (tree / UNIT.path[1:]).stat().st_ino == inode
        (tmp_path / "bin/mv").unlink()
        (tmp_path / "bin/mv").symlink_to("/usr/bin/mv")
        assert [change.action for change in _flash(sshd, tree)] == ["change", "add", "add", "add"]


@pytest.mark.parametrize("healthy", [True, False])
def test_systemd_is_told_and_what_it_refuses_is_taken_back(healthy: bool, tree: Path, tmp_path: Path) -> None:
    """User, owners, units, agent, in this order; when the units are not taken, the old ones come back."""
    log = tmp_path / "log"
    told = {name: f'echo "{name} $*" >>{log}' for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles")}
    if not healthy:
        told["systemctl"] += f'\n[ "$1" != daemon-reload ] || [ "$(grep -c daemon-reload {log})" = 2 ]'
    path = _tools(tmp_path / "bin", **told, grep='exec /usr/bin/grep "$@"')
    place = Place(str(tree), "/usr/bin/python3")
    with Sshd(tmp_path / "sshd", path) as sshd:
        flashing = flash_target(sshd.target(), PLAN, sshd.login, place)
        if healthy:
            asyncio.run(flashing)
            asyncio.run(flash_target(sshd.target(), PLAN, sshd.login, place))
        else:
            with pytest.raises(StoreError, match="systemd did not take it"):
                asyncio.run(flashing)
    words = [line.split()[0] + " " + line.split()[1] for line in log.read_text().splitlines()]
    start = [f"systemd-sysusers {tree}/etc/sysusers.d/roadcast.conf", "systemd-tmpfiles --create"]
    start += ["systemctl daemon-reload"]
    assert words == start + (["systemctl stop", "systemctl restart"] if healthy else ["systemctl daemon-reload"])
    assert (tree / UNIT.path[1:]).exists() == healthy


@pytest.mark.parametrize(
    ("scripts", "without", "says"),
    [
        ({"id": "echo 1000"}, (), "there is no sudo"),
        ({"id": "echo 1000", "sudo": "exit 1"}, (), "sudo wants a password"),
        ({}, ("sha256sum",), "has no sha256sum"),
        ({"head": "exec /usr/bin/cat"}, (), "reads too far"),
    ],
)
def test_a_target_that_lacks_something_is_told_what(
    scripts: dict[str, str], without: tuple[str, ...], says: str, tree: Path, tmp_path: Path
) -> None:
    """No sudo, sudo with a password, no tool, a tool of another kind: one clear error, nothing written."""
    path = _tools(tmp_path / "bin", *without, **scripts)
    with Sshd(tmp_path / "sshd", path) as sshd, pytest.raises(NotReadyError, match=says):
        _flash(sshd, tree)
    assert list((tree / "etc").iterdir()) == []


def test_sudo_without_a_password_is_enough(tree: Path, tmp_path: Path) -> None:
    """A user that is not root gets in by `sudo -n`."""
    sudo = f'echo "$1 $2" >>{tmp_path}/log; shift; exec "$@"'
    with Sshd(tmp_path / "sshd", _tools(tmp_path / "bin", id="echo 1000", sudo=sudo)) as sshd:
        assert [change.action for change in _flash(sshd, tree)] == ["add"] * 4
    assert (tmp_path / "log").read_text().splitlines() == ["-n true", "-n sh"] * 2


@pytest.mark.parametrize(
    ("missing", "says"),
    [("usr/bin/python3", "no /usr/bin/python3"), ("usr/lib/systemd", "no systemd"), ("etc", "no root filesystem")],
)
def test_a_tree_without_python_or_systemd_is_refused(missing: str, says: str, sshd: Sshd, tree: Path) -> None:
    """Before anything is written."""
    (tree / missing).rmdir() if (tree / missing).is_dir() else (tree / missing).unlink()
    before = _snapshot(tree)
    with pytest.raises(NotReadyError, match=says):
        _flash(sshd, tree)
    assert _snapshot(tree) == before


@pytest.mark.parametrize("place", ["etc/roadcast", "etc/roadcast/key.pem", "etc/systemd/system"])
def test_no_link_on_the_target_is_followed(place: str, sshd: Sshd, tree: Path) -> None:
    """A folder or a file that is a link stops the run; what it points to stays."""
    (tree / place).parent.mkdir(parents=True, exist_ok=True)
    (tree / place).symlink_to(tree.parent if "." not in place else tree.parent / "outside")
    before = _snapshot(tree.parent)
    with pytest.raises(StoreError, match="none is followed"):
        _flash(sshd, tree)
    assert _snapshot(tree.parent) == before


def test_one_that_fails_stops_no_other(sshd: Sshd, tree: Path) -> None:
    """Two targets are flashed, one without a root filesystem and one that does not listen are errors, in order."""
    plans = [Plan((PlannedFile(f"/etc/{name}", name.encode()),), ()) for name in ("a", "b")]
    jobs = [
        Job("a", sshd.target(), plans[0]),
        Job("dead", sshd.target(port=1), PLAN),
        Job("b", sshd.target(), plans[1]),
    ]
    heard: dict[str, list[str]] = {}

    def told(device: str, state: str) -> None:
        heard.setdefault(device, []).append(state)

    results = asyncio.run(flash_all(jobs, sshd.login, Place(str(tree), live=False), at_once=1, told=told))
    assert [isinstance(result, RoadcastError) for result in results] == [False, True, False]
    assert (tree / "etc/a").read_text() + (tree / "etc/b").read_text() == "ab"
    assert heard["dead"] == ["connecting"]
