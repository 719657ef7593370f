"""A whole aarch64 system under QEMU, with its own kernel and systemd, from a flashed image on; ``make qemu-system``."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devices.provision.site import CONFIG_DIR
from devices.provision.units import AGENT_UNIT, RENEW_TIMER, RENEW_UNIT, SETUP_UNIT
from edge_client.installed import resolve
from edge_models.tasks import load_task
from tests.fakes.waiting import wait_for
from tests.qemu import debian
from tests.qemu.authority import HOST, Authority, Steps, roadcast, say
from tests.qemu.centre import CONFIG, DEVICE, FLEET, ROADCAST, STATE, TASK, Centre
from tests.qemu.machine import PATIENCE_S, SEEN_AS, Machine
from tests.qemu.system_image import TOOLS, system_image

pytestmark = [pytest.mark.qemu, pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(4 * 3600)]
WATCHDOG_S, MEMORY_MB = 120, 1024


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with a blank Debian, off; whatever happens, neither its process nor its disk is left."""
    debian.prepare(TOOLS)
    image, disk = system_image(), tmp_path / "disk.img"
    debian.run("cp", "--sparse=always", image.disk, disk)
    made = Machine(image, disk, tmp_path / "console.log")
    try:
        yield made
    finally:
        made.power_off()
        disk.unlink()


def first_use(machine: Machine, authority: Authority, centre: Centre, steps: Steps) -> None:
    """From a blank Debian to a device that `roadcast devices list` shows as online."""
    site = centre.site(memory_mb=MEMORY_MB)
    steps.roadcast("flash", "--site", site, "--device", DEVICE, "--image", machine.disk)
    with steps.step("first boot (no command), until root can log in"):
        machine.power_on(PATIENCE_S)
    with steps.step("set-up unit: virtual environment, wheels (no command)"):
        machine.wait(f"systemctl show {SETUP_UNIT} | grep -E '^ActiveState=(active|failed)'", 2 * PATIENCE_S)
        assert machine.unit(SETUP_UNIT)["Result"] == "success"
        machine.wait(f"systemctl is-active {AGENT_UNIT}", PATIENCE_S)
    agent = machine.unit(AGENT_UNIT)
    assert agent["NRestarts"] == "0"
    assert "not enrolled yet" in agent["StatusText"]
    token = authority.token(DEVICE, steps)
    with steps.step("on the device: roadcast client enrol"):
        said = machine.run(ROADCAST, "client", "enrol", "--config", CONFIG, "--token", token, user="roadcast")
        assert "certified until" in said
    with steps.step("on the device: systemctl restart roadcast-agent, until it is online"):
        machine.run("systemctl", "restart", AGENT_UNIT, within_s=PATIENCE_S)
        wait_for(centre.listed, "device online", within_s=PATIENCE_S)


def is_flashed_as_it_runs(machine: Machine, centre: Centre) -> None:
    """Over SSH the running board takes another watchdog: systemd reads it and restarts; again, nothing is written."""
    before = machine.unit(AGENT_UNIT)
    reach = {"host": HOST, "port": machine.port, "fingerprint": machine.image.fingerprint()}
    site = centre.site(reach, memory_mb=MEMORY_MB, watchdog_s=WATCHDOG_S)
    flash = ("flash", "--site", site, "--ssh", DEVICE, "--identity", machine.image.identity)
    assert "written" in roadcast(*flash)
    machine.wait(f"systemctl is-active {AGENT_UNIT}", PATIENCE_S)
    agent = machine.unit(AGENT_UNIT)
    assert agent["MainPID"] != before["MainPID"]
    assert (before["WatchdogUSec"], agent["WatchdogUSec"], agent["NRestarts"]) == ("5min", "2min", "0")
    assert "unchanged" in roadcast(*flash)
    assert machine.unit(AGENT_UNIT)["MainPID"] == agent["MainPID"]
    serves_again(centre)


def is_confined(machine: Machine) -> None:
    """The kernel holds the agent to what its unit says: user, rights, system calls, memory, a root to read only."""
    agent = machine.unit(AGENT_UNIT)
    there = f"/proc/{agent['MainPID']}"
    status = dict(line.split(":", 1) for line in machine.run("cat", f"{there}/status").splitlines())
    user = machine.run("id", "-u", "roadcast").strip()
    assert user != "0"
    assert status["Uid"].split() == [user] * 4
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
    assert int(machine.run("cat", f"/sys/fs/cgroup{agent['ControlGroup']}/memory.max")) == MEMORY_MB << 20
    view = ("nsenter", "--target", agent["MainPID"], "--mount", "sh", "-c")
    writable = f"! touch /etc/x && ! touch {CONFIG_DIR}/x && touch {STATE}/x && rm {STATE}/x && ! ls -A /home | grep ."
    machine.run(*view, writable)


def serves_again(centre: Centre) -> None:
    """Wait until the server has heard of more answered frames."""
    known = centre.state()
    wait_for(lambda: centre.state()["at_s"] > known["at_s"], "a newer state", within_s=PATIENCE_S)


def is_watched(machine: Machine, centre: Centre) -> None:
    """An agent that hangs is killed by systemd's watchdog, started again, and serves; a killed one too."""
    for signal, result in (("STOP", "watchdog"), ("KILL", "signal")):
        before = machine.unit(AGENT_UNIT)
        machine.run("kill", f"-{signal}", before["MainPID"])
        again = f"systemctl show {AGENT_UNIT} | grep -qx NRestarts={int(before['NRestarts']) + 1}"
        machine.wait(f"{again} && systemctl is-active {AGENT_UNIT}", PATIENCE_S)
        assert machine.unit(AGENT_UNIT)["MainPID"] != before["MainPID"]
        assert f"Failed with result '{result}'" in machine.run("journalctl", "-b", "-u", AGENT_UNIT)
        serves_again(centre)


def named_by_the_disk(machine: Machine, folder: Path) -> list[int]:
    """Releases that the next boot may serve, current one first; each pointer that there is must hold."""
    state = folder / "found"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir()
    with machine.disk_after(folder) as disk:
        disk.ask(f"rdump {STATE} {state}")
    found, root = state / "roadcast", (folder / "root.json").read_bytes()
    whole, skipped = resolve(found / TASK, found / "blobs", spec=load_task(TASK), tier="nano", root=root)
    assert not skipped
    return [release.release for release in whole]


def cut_off_while_it_installs(machine: Machine, centre: Centre) -> None:
    """Push release 2, and cut the power twice: while its blobs are fetched, and while it is tried beside release 1."""
    blobs, attempts = f"{STATE}/blobs", f"{STATE}/{TASK}/attempts.json"
    count = machine.run("sh", "-c", f"ls {blobs} | wc -l").strip()
    centre.push(seed=1)
    machine.wait(f"test $(ls {blobs} | wc -l) -gt {count}", PATIENCE_S)
    machine.power_off()
    found = named_by_the_disk(machine, centre.folder)
    say(f"power was cut while release 2 was fetched; the disk names {found}")
    assert found == [1]
    machine.power_on(PATIENCE_S)
    machine.wait(f"grep -qs '2]' {attempts}", PATIENCE_S)
    machine.power_off()
    found = named_by_the_disk(machine, centre.folder)
    say(f"power was cut while release 2 was tried; the disk names {found}")
    assert found in ([1], [2, 1])
    machine.power_on(PATIENCE_S)


def test_a_system_from_image_to_online_and_through_the_loss_of_power(tmp_path: Path, machine: Machine) -> None:
    """Flashed into an image, set up and watched by systemd, confined, enrolled; two power cuts in release 2."""
    before, steps = Steps(), Steps()
    authority = Authority(tmp_path, FLEET, SEEN_AS)
    with ExitStack() as services:
        services.enter_context(authority.running(before))
        centre = Centre(tmp_path, authority.port, debian.wheelhouse(), SEEN_AS)
        centre.push(seed=0)
        before.roadcast("server", "enrol", "--config", centre.file, "--token", authority.token("server", before))
        services.enter_context(centre.running())
        first_use(machine, authority, centre, steps)
        say(f"once for a fleet:\n{before}\nfor this device:\n{steps}")

        wait_for(lambda: centre.state().get("release") == 1, "release 1 serving", within_s=PATIENCE_S)
        say(machine.run("uname", "-a") + machine.run(ROADCAST, "version"))
        say(machine.run(ROADCAST, "doctor", "--config", CONFIG, user="roadcast", good=False))
        say(machine.run("systemd-analyze", "security", "--no-pager", AGENT_UNIT).splitlines()[-1])
        is_flashed_as_it_runs(machine, centre)
        is_confined(machine)
        is_watched(machine, centre)
        machine.run("systemctl", "start", RENEW_UNIT, within_s=PATIENCE_S)
        machine.run("systemctl", "is-active", RENEW_TIMER)

        cut_off_while_it_installs(machine, centre)
        began = time.monotonic()
        wait_for(lambda: centre.state().get("release") == 2, "release 2 serving", within_s=PATIENCE_S)
        say(f"release 2 serves {time.monotonic() - began:.0f} s after the last boot")
        assert machine.run("systemctl", "is-system-running", "--wait", within_s=PATIENCE_S).strip() == "running"
        assert machine.console().count("EXT4-fs (vda): recovery complete") == 2
        serves_again(centre)
        machine.run("systemctl", "stop", AGENT_UNIT, within_s=PATIENCE_S)
        assert machine.unit(AGENT_UNIT)["Result"] == "success"
        machine.power_off()
        assert named_by_the_disk(machine, tmp_path) == [2, 1]
