"""A plan carried out over a real sshd on loopback: once, twice, cut off, and refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import asyncssh
import msgspec
import pytest

from devices.provision.connection import Login
from devices.provision.plan import Plan, PlannedFile
from devices.provision.site import SshConfig
from devices.provision.ssh import Job, Place, flash_all, flash_target
from edge_protocol.errors import ConfigError, NotReadyError, RoadcastError, TransportError
from tests.fakes.proxy import Proxy
from tests.fakes.sshd import HOST_KEYS, SKIP_REASON, Sshd
from tests.fakes.target import LINK, PLAN, SECRET, UNIT, WHEEL, flash, snapshot

pytestmark = pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)


@pytest.fixture(name="sshd", scope="module")
def started_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A started server."""
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as server:
        yield server


@pytest.fixture(name="tree")
def empty_tree(tmp_path: Path) -> Path:
    """What stands for the root of a target, beside a file that must stay as it is."""
    for folder in ("etc", "usr/bin", "usr/lib/systemd"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "root/usr/bin/python3").touch()
    (tmp_path / "outside").write_text("untouched")
    return tmp_path / "root"


def test_a_plan_is_carried_out_and_a_second_run_writes_nothing(sshd: Sshd, tree: Path) -> None:
    """Content, modes, owner and link; then not an inode or a time is different. A name is never run as a command."""
    assert [change.action for change in flash(sshd, tree)] == ["add"] * 4
    for file in PLAN.files:
        status = (tree / file.path[1:]).stat()
        assert (tree / file.path[1:]).read_bytes() == file.content
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (file.mode, 0, 0)
    assert str((tree / LINK.path[1:]).readlink()) == LINK.target
    assert {path.name for path in tree.rglob(".*")} == {".roadcast-receipt"}
    before = snapshot(tree)
    assert [change.action for change in flash(sshd, tree)] == ["keep"] * 4
    assert snapshot(tree) == before


def test_a_dry_run_shows_the_difference_and_writes_nothing(sshd: Sshd, tree: Path) -> None:
    """What it announces is what the run then does; a secret is not shown."""
    flash(sshd, tree)
    (tree / UNIT.path[1:]).write_text("[Service]\nType=simple\n")
    (tree / SECRET.path[1:]).write_text("other")
    (tree / LINK.path[1:]).unlink()
    (tree / LINK.path[1:]).symlink_to("/dev/null")
    before = snapshot(tree)
    announced = flash(sshd, tree, dry_run=True)
    assert snapshot(tree) == before
    assert [change.action for change in announced] == ["change", "change", "keep", "change"]
    assert "-Type=simple\n+Type=notify" in announced[0].diff
    assert announced[1].diff == ""
    assert flash(sshd, tree) == announced
    assert {change.action for change in flash(sshd, tree)} == {"keep"}


@pytest.mark.parametrize("wrong", ["content", "mode", "owner"])
def test_what_is_wrong_is_mended(wrong: str, sshd: Sshd, tree: Path) -> None:
    """A large file as well, although its hash is remembered under inode, size and times."""
    flash(sshd, tree)
    wheel = tree / WHEEL.path[1:]
    status = wheel.stat()
    if wrong == "content":
        wheel.write_bytes(WHEEL.content[::-1])
        os.utime(wheel, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif wrong == "mode":
        wheel.chmod(0o666)
    else:
        os.chown(wheel, 1, 1)
    assert [change.action for change in flash(sshd, tree)] == ["keep", "keep", "change", "keep"]
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
    assert [change.action for change in flash(sshd, tree, plan)] == ["change", "add", "add", "add"]
    assert (tree / "opt/a.whl").read_bytes() == plan.files[2].content
    assert {path.name for path in tree.rglob(".*")} == {".roadcast-receipt"}
    assert {change.action for change in flash(sshd, tree, plan)} == {"keep"}


@pytest.mark.parametrize("who", ["another flash", "an editor"])
def test_what_changes_between_looking_and_writing_is_noticed(who: str, sshd: Sshd, tree: Path) -> None:
    """Nothing is written over another run's plan, half of which was compared; no file is remembered as it never was."""
    flash(sshd, tree)
    (tree / UNIT.path[1:]).write_text("old")
    wheel, other = tree / WHEEL.path[1:], msgspec.structs.replace(WHEEL, content=WHEEL.content[::-1])

    def told(state: str) -> None:
        if state == "sending" and who == "an editor":
            wheel.write_bytes(other.content)
        elif state == "sending":
            thread = Thread(target=flash, args=(sshd, tree, Plan((UNIT, other), ())))
            thread.start()
            thread.join()

    target, place = sshd.target(fingerprint=sshd.fingerprint), Place(str(tree), live=False)
    flashing = flash_target(target, PLAN, sshd.login, place, told=told)
    if who == "an editor":
        asyncio.run(flashing)
    else:
        with pytest.raises(NotReadyError, match="another flash was at work on this target meanwhile; run it again"):
            asyncio.run(flashing)
    assert wheel.read_bytes() == other.content
    assert [change.action for change in flash(sshd, tree)] == ["keep", "keep", "change", "keep"]
    assert wheel.read_bytes() == WHEEL.content


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


@pytest.mark.parametrize("kind", HOST_KEYS)
def test_the_fingerprint_of_any_host_key_will_do(kind: str, sshd: Sshd, tree: Path) -> None:
    """A target has host keys of several kinds, and whichever the site names is the one that is asked for."""
    target, place = sshd.target(fingerprint=sshd.fingerprints[kind]), Place(str(tree), live=False)
    login = msgspec.structs.replace(sshd.login, known_hosts=tree / "none")
    assert asyncio.run(flash_target(target, PLAN, login, place))[0].action == "add"


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


def test_leftovers_of_a_cut_in_the_middle_of_the_renames_go(sshd: Sshd, tree: Path) -> None:
    """The mark of an unfinished run makes the next one clean up, although every file is right already."""
    flash(sshd, tree)
    (tree / "etc/.roadcast-flash").touch()
    old = tree / UNIT.path[1:].replace("roadcast-agent", ".roadcast-agent")
    for leftover in (f"{old}.roadcast", f"{old}.roadcast-old"):
        Path(leftover).write_text("left over")
    assert {change.action for change in flash(sshd, tree)} == {"keep"}
    assert {path.name for path in tree.rglob(".*")} == {".roadcast-receipt"}


@pytest.mark.parametrize(("password", "says"), [("right", "left with 7"), ("wrong", "was not let in")])
def test_a_password_lets_in(password: str, says: str) -> None:
    """A server that takes one password and whose shell leaves with 7 is reached with that password only."""

    class OnePassword(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return password == "right"

    async def leave(process: asyncssh.SSHServerProcess[str]) -> None:
        process.exit(7)

    async def flash() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        listener = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[key],
            server_factory=OnePassword,
            process_factory=leave,
        )
        async with listener:
            target = SshConfig(host="127.0.0.1", port=listener.get_port(), fingerprint=key.get_fingerprint())
            await flash_target(target, PLAN, Login(Path("none"), password=password), Place())

    with pytest.raises(NotReadyError, match=says):
        asyncio.run(flash())
