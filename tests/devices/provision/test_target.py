"""The target's half, by way of a real sshd: what it lacks, what is in its way, and what it takes back."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.provision.plan import INSTALLED, Plan, PlannedFile
from devices.provision.power_mode import POWER_UNIT
from devices.provision.remote import question, work_of
from devices.provision.rootfs import carry_out
from devices.provision.ssh import _SCRIPT, Place, flash_target
from devices.provision.units import RENEW_TIMER, RULES, SETUP_UNIT
from edge_protocol.errors import NotReadyError, StoreError
from tests.fakes.sshd import SKIP_REASON, Sshd
from tests.fakes.target import LINK, PLAN, SECRET, UNIT, contents, flash, snapshot, tools_path

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
        before = contents(tree), sorted(tree.rglob("*"))
        with pytest.raises(StoreError, match=r"No space left.*what was there before"):
            flash(sshd, tree)
        assert (contents(tree), sorted(tree.rglob("*"))) == before
        assert [change.action for change in flash(sshd, tree, Plan((UNIT, SECRET), (LINK,)))] == [
            "change",
            "add",
            "add",
        ]
    finally:
        subprocess.run(["umount", str(tree)], check=True)


def test_what_was_replaced_comes_back_when_a_later_step_fails(tree: Path, tmp_path: Path) -> None:
    """The third rename fails: two files are as they were, with their inodes; a rerun on a healthy target finishes."""
    fails = 'case "$PWD $*" in *-old*) ;; *.target.wants\\ *) exit 1 ;; esac\nexec /usr/bin/mv "$@"'
    path = tools_path(tmp_path / "bin", mv=fails)
    with Sshd(tmp_path / "sshd", path) as sshd:
        (tree / "etc/systemd/system").mkdir(parents=True)
        (tree / UNIT.path[1:]).write_text("old")
        inode, before = (tree / UNIT.path[1:]).stat().st_ino, contents(tree)
        with pytest.raises(StoreError, match="cannot be replaced"):
            flash(sshd, tree)
        assert contents(tree) == before
        assert (tree / UNIT.path[1:]).stat().st_ino == inode
        (tmp_path / "bin/mv").unlink()
        (tmp_path / "bin/mv").symlink_to("/usr/bin/mv")
        assert [change.action for change in flash(sshd, tree)] == ["change", "add", "add", "add"]


def test_what_cannot_be_put_back_is_said(tree: Path, tmp_path: Path) -> None:
    """The disk fails for good in the middle: nobody is told that all is as before, and the next run finishes."""
    fails = f"[ ! -e {tmp_path}/bad ] || exit 1\ncase $* in *.target.wants*|*key.pem) touch {tmp_path}/bad ;; esac\n"
    path = tools_path(tmp_path / "bin", mv=f'{fails}exec /usr/bin/mv "$@"', touch='exec /usr/bin/touch "$@"')
    with Sshd(tmp_path / "sshd", path) as sshd:
        (tree / "etc/systemd/system").mkdir(parents=True)
        (tree / UNIT.path[1:]).write_text("old")
        with pytest.raises(StoreError, match=r"cannot be put back; old and new files lie side by side.* run it again"):
            flash(sshd, tree)
        assert (tree / "etc/systemd/system/.roadcast-agent.service.roadcast-old").read_text() == "old"
        (tmp_path / "bin/mv").unlink()
        (tmp_path / "bin/mv").symlink_to("/usr/bin/mv")
        assert len(flash(sshd, tree)) == len(PLAN.files) + 1
        assert {change.action for change in flash(sshd, tree)} == {"keep"}
    assert {path.name for path in tree.rglob(".*")} == {".roadcast-receipt"}


@pytest.mark.parametrize("healthy", [True, False])
def test_systemd_is_told_and_what_it_refuses_is_taken_back(healthy: bool, tree: Path, tmp_path: Path) -> None:
    """User, owners, units, agent, in this order; when the units are not taken, the old ones come back."""
    log = tmp_path / "log"
    told = {name: f'echo "{name} $*" >>{log}' for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles")}
    if not healthy:
        told["systemctl"] += f'\n[ "$1" != daemon-reload ] || [ "$(grep -c daemon-reload {log})" = 2 ]'
    path = tools_path(tmp_path / "bin", **told, grep='exec /usr/bin/grep "$@"')
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
    assert words == start + (["systemctl restart", "systemctl is-active"] if healthy else ["systemctl daemon-reload"])
    assert (tree / UNIT.path[1:]).exists() == healthy


def test_wheels_that_cannot_be_installed_leave_the_old_agent_running(tree: Path, tmp_path: Path) -> None:
    """The set-up is waited for: when it fails the run fails, the old files come back, and no agent is restarted."""
    log = tmp_path / "log"
    told = {name: f'echo "{name} $*" >>{log}' for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles")}
    told["systemctl"] += f'\n[ "$*" != "restart {SETUP_UNIT}" ]'
    path = tools_path(tmp_path / "bin", **told, journalctl="echo No space left on device")
    setup = tree / f"etc/systemd/system/{SETUP_UNIT}"
    setup.parent.mkdir(parents=True)
    setup.write_text("old")
    before = contents(tree)
    plan = Plan((*PLAN.files, PlannedFile(f"/etc/systemd/system/{SETUP_UNIT}", b"new")), PLAN.links)
    with (
        Sshd(tmp_path / "sshd", path) as sshd,
        pytest.raises(StoreError, match=r"No space left.*could not be installed"),
    ):
        asyncio.run(flash_target(sshd.target(), plan, sshd.login, Place(str(tree), "/usr/bin/python3")))
    assert contents(tree) == before
    heard = log.read_text().splitlines()
    assert heard[-3:] == ["systemctl daemon-reload", f"systemctl restart {SETUP_UNIT}", "systemctl daemon-reload"]


@pytest.mark.parametrize("broken", ["agent", "udev"])
def test_what_does_not_run_is_taken_back_and_the_old_services_run_again(
    broken: str, tree: Path, tmp_path: Path
) -> None:
    """The agent is waited for: its own words are told, units that went are started, those that came are stopped."""
    log, bad = tmp_path / "log", tmp_path / "bad"
    names = ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "udevadm")
    told = {name: f'echo "{name} $*" >>{log}' for name in names}
    told["systemctl"] += f'\n[ "$1" != is-active ] || [ ! -e {bad}-agent ]'
    told["udevadm"] += f"\n[ ! -e {bad}-udev ]"
    path = tools_path(tmp_path / "bin", **told, journalctl='echo "$1: no trusted root"')
    old, new = (
        Plan((unit, PlannedFile(INSTALLED, f"{unit.path}\n{RULES}\n".encode()), *more), ())
        for unit, more in [
            (PlannedFile(f"/etc/systemd/system/{RENEW_TIMER}", b"\n"), (UNIT,)),
            (PlannedFile(f"/etc/systemd/system/{POWER_UNIT}", b"\n"), (UNIT, PlannedFile(RULES, b"#\n"))),
        ]
    )
    place = Place(str(tree), "/usr/bin/python3")
    with Sshd(tmp_path / "sshd", path) as sshd:
        asyncio.run(flash_target(sshd.target(), old, sshd.login, place))
        before = contents(tree)
        log.write_text("")
        (tmp_path / f"bad-{broken}").touch()
        says = "=roadcast-agent.service: no trusted root; the agent does not" if broken == "agent" else "udev did not"
        with pytest.raises(StoreError, match=f"{says}.*is there again"):
            asyncio.run(flash_target(sshd.target(), new, sshd.login, place))
    assert contents(tree) == before
    heard = [line.removeprefix("systemctl ") for line in log.read_text().splitlines()]
    taken_back = heard[heard.index("daemon-reload", heard.index("daemon-reload") + 1) :]
    assert f"stop {RENEW_TIMER}" in heard
    assert f"stop {POWER_UNIT}" in taken_back
    assert f"restart --no-block {RENEW_TIMER}" in taken_back
    assert taken_back[-1] == "restart --no-block roadcast-agent.service"


def test_a_plan_without_cameras_does_not_need_udev(tree: Path, tmp_path: Path) -> None:
    """In a container udevadm is there and fails; it is asked when rules come, change or go, and only then."""
    names = ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "journalctl")
    path = tools_path(tmp_path / "bin", **dict.fromkeys(names, "exit 0"), udevadm="exit 1")
    with Sshd(tmp_path / "sshd", path) as sshd:
        asyncio.run(flash_target(sshd.target(), PLAN, sshd.login, Place(str(tree), "/usr/bin/python3")))
    assert (tree / UNIT.path[1:]).exists()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_every_shell_finds_each_file_under_its_own_name(shell: str, tree: Path) -> None:
    """Backslashes, spaces, dashes, patterns: of many files that are looked at together, none takes another's place."""
    names = ["a\\b", "-n", "a b", "*", "[x]", "$HOME", "a\\", "\\a", "é"]
    plan = Plan(tuple(PlannedFile(f"/opt/-d/{name}", name.encode() * 9) for name in names), ())
    carry_out(plan, tree)
    (tree / "opt/-d/a b").write_text("other")
    command = [shell, "-c", _SCRIPT, "roadcast", "look", str(tree), "/usr/bin/python3", "no"]
    done = subprocess.run(command, input=question(plan), capture_output=True, check=True, timeout=30)
    actions = {change.path.rpartition("/")[2]: change.action for change in work_of(plan, done.stdout).changes}
    assert actions == {name: "change" if name == "a b" else "keep" for name in names}


def test_power_mode_cameras_and_renewal_take_effect_at_once(tree: Path, tmp_path: Path) -> None:
    """Their units and rules are not left for the next boot; what the next plan leaves out is stopped."""
    log = tmp_path / "log"
    names = ("systemctl", "systemd-sysusers", "systemd-tmpfiles", "udevadm")
    path = tools_path(tmp_path / "bin", **{name: f'echo "{name} $*" >>{log}' for name in names})
    units = (POWER_UNIT, RENEW_TIMER)
    more = (*(PlannedFile(f"/etc/systemd/system/{unit}", b"\n") for unit in units), PlannedFile(RULES, b"#\n"))
    with Sshd(tmp_path / "sshd", path) as sshd:
        place = Place(str(tree), "/usr/bin/python3")
        listed = PlannedFile(INSTALLED, "".join(f"{file.path}\n" for file in more).encode())
        plan, less = Plan((*PLAN.files, *more, listed), PLAN.links), Plan((PlannedFile(INSTALLED, b""),), ())
        asyncio.run(flash_target(sshd.target(), plan, sshd.login, place))
        told = log.read_text()
        asyncio.run(flash_target(sshd.target(), less, sshd.login, place))
    assert all(f"systemctl stop {unit}\n" in log.read_text().removeprefix(told) for unit in units)
    assert all(f"systemctl restart --no-block {unit}\n" in told for unit in units)
    assert "udevadm control --reload\nudevadm trigger --subsystem-match=video4linux" in told


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
    path = tools_path(tmp_path / "bin", *without, **scripts)
    with Sshd(tmp_path / "sshd", path) as sshd, pytest.raises(NotReadyError, match=says):
        flash(sshd, tree)
    assert list((tree / "etc").iterdir()) == []


def test_sudo_without_a_password_is_enough(tree: Path, tmp_path: Path) -> None:
    """A user that is not root gets in by `sudo -n`."""
    sudo = f'echo "$1 $2" >>{tmp_path}/log; shift; exec "$@"'
    with Sshd(tmp_path / "sshd", tools_path(tmp_path / "bin", id="echo 1000", sudo=sudo)) as sshd:
        assert [change.action for change in flash(sshd, tree)] == ["add"] * 4
    assert (tmp_path / "log").read_text().splitlines() == ["-n true", "-n sh"] * 2


@pytest.mark.parametrize(
    ("missing", "says"),
    [("usr/bin/python3", "no /usr/bin/python3"), ("usr/lib/systemd", "no systemd"), ("etc", "no root filesystem")],
)
def test_a_tree_without_python_or_systemd_is_refused(missing: str, says: str, sshd: Sshd, tree: Path) -> None:
    """Before anything is written."""
    (tree / missing).rmdir() if (tree / missing).is_dir() else (tree / missing).unlink()
    before = snapshot(tree)
    with pytest.raises(NotReadyError, match=says):
        flash(sshd, tree)
    assert snapshot(tree) == before


def test_a_target_with_another_processor_is_refused(sshd: Sshd, tree: Path) -> None:
    """Before anything is written, in a dry run too; a folder that stands for a root may be another machine's."""
    before = snapshot(tree)
    place = Place(str(tree), "/usr/bin/python3", machine="sparc")
    with pytest.raises(NotReadyError, match=r"127.0.0.1: its processor is .*, and install.machine of the site sparc"):
        asyncio.run(flash_target(sshd.target(), PLAN, sshd.login, place, dry_run=True))
    assert snapshot(tree) == before
    below = Place(str(tree), "/usr/bin/python3", live=False, machine="sparc")
    assert asyncio.run(flash_target(sshd.target(), PLAN, sshd.login, below, dry_run=True))


def test_an_answer_that_is_none_names_the_target(tree: Path, tmp_path: Path) -> None:
    """Whatever a tool there has put in between, it is said of which host, and nothing is written."""
    path = tools_path(tmp_path / "bin", uname="echo; echo x")
    with Sshd(tmp_path / "sshd", path) as sshd, pytest.raises(NotReadyError, match=r"127.0.0.1: .*; does its login"):
        flash(sshd, tree)
    assert not (tree / "opt").exists()


@pytest.mark.parametrize("place", ["etc/roadcast", "etc/roadcast/key.pem", "etc/systemd/system"])
def test_no_link_on_the_target_is_followed(place: str, sshd: Sshd, tree: Path) -> None:
    """A folder or a file that is a link stops the run; what it points to stays."""
    (tree / place).parent.mkdir(parents=True, exist_ok=True)
    (tree / place).symlink_to(tree.parent if "." not in place else tree.parent / "outside")
    before = snapshot(tree.parent)
    with pytest.raises(StoreError, match="none is followed"):
        flash(sshd, tree)
    assert snapshot(tree.parent) == before
