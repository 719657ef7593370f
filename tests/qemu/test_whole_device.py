"""A whole aarch64 device under QEMU: flashed, enrolled, serving, cut off while it installs a release; ``make qemu``."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.waiting import wait_for
from tests.qemu import debian
from tests.qemu.authority import Authority, Steps, roadcast, say
from tests.qemu.board import Board
from tests.qemu.centre import CONFIG, DEVICE, FLEET, ROADCAST, STATE, TASK, Centre

pytestmark = [pytest.mark.qemu, pytest.mark.broker, pytest.mark.timeout(7200)]
WITHIN_S = 1200.0


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    """A board with a blank Debian, off; whatever happens, no process and no mount of it is left."""
    debian.prepare({})
    made = Board(debian.unpack(debian.root_filesystem(), tmp_path / "board"), tmp_path / "board.log")
    try:
        yield made
    finally:
        made.power_off()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def first_use(board: Board, authority: Authority, centre: Centre, steps: Steps) -> None:
    """From a blank Debian to a device that `roadcast devices list` shows as online."""
    site = centre.site()
    steps.roadcast("flash", "--site", site, "--device", DEVICE, "--rootfs", board.root)
    with steps.step("first boot: user, virtual environment, wheels (no command)"):
        board.power_on()
        board.activate()
        assert board.set_up()
    token = authority.token(DEVICE, steps)
    with steps.step("on the device: roadcast client enrol"):
        said = board.run(ROADCAST, "client", "enrol", "--config", CONFIG, "--token", token, user="roadcast")
        assert "certified until" in said
    with steps.step("on the device: systemctl restart roadcast-agent, until it is online"):
        board.start_agent(WITHIN_S)
        wait_for(centre.listed, "device online", within_s=WITHIN_S)


def pointer(board: Board) -> int:
    """Counter of the release that the board's disk names; 0 for none."""
    path = board.root / STATE.removeprefix("/") / TASK / "current.json"
    return int(json.loads(path.read_text())["release"]) if path.exists() else 0


def cut_off_while_it_installs(board: Board, centre: Centre) -> None:
    """Push release 2, and cut the power twice: while its blobs are fetched, and while it is tried beside release 1."""
    state = board.root / STATE.removeprefix("/")
    blobs, attempts = state / "blobs", state / TASK / "attempts.json"
    before = set(blobs.iterdir())
    centre.push(seed=1)
    wait_for(lambda: set(blobs.iterdir()) - before, "a new blob", within_s=WITHIN_S)
    board.power_off()
    assert pointer(board) == 1
    say("power was cut while release 2 was fetched; the disk names release 1")
    board.power_on()
    assert not board.set_up()
    board.start_agent(WITHIN_S)
    wait_for(lambda: attempts.exists() and "2]" in attempts.read_text(), "release 2 being tried", within_s=WITHIN_S)
    board.power_off()
    say(f"power was cut while release 2 was tried; the disk names release {pointer(board)}")
    assert pointer(board) in {1, 2}
    board.power_on()
    board.start_agent(WITHIN_S)


def answer_a_round(board: Board, centre: Centre, services: ExitStack) -> None:
    """Put torch onto the board, hold a round, and wait for its report."""
    there = board.root / "opt/training"
    there.mkdir()
    with (steps := Steps()).step("torch"):
        for wheel in debian.training_wheels():
            shutil.copy(wheel, there)
        names = [f"/opt/training/{path.name}" for path in there.iterdir()]
        python = f"{ROADCAST.rpartition('/')[0]}/python"
        board.run(python, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", *names)
        board.run(python, "-c", "import edge_models.fit")  # as root: compiled once, and only what is imported
    centre.hold(rounds=1)
    services.enter_context(centre.running())

    def round_of() -> dict[str, Any]:
        return next((r for r in centre.status()["tasks"][TASK]["rounds"] if r["number"] == 1), {})

    with steps.step("a round opened, trained for and answered"):
        wait_for(lambda: round_of().get("reports") == 1 or round_of().get("refused"), "a report", within_s=2 * WITHIN_S)
    say(steps)
    assert not round_of()["refused"]


def test_a_device_from_blank_to_online_and_through_the_loss_of_power(tmp_path: Path, board: Board) -> None:
    """Flashed, enrolled over mutual TLS, online, on release 1; two power cuts in release 2, which serves in the end."""
    before, steps, authority = Steps(), Steps(), Authority(tmp_path, FLEET)
    with ExitStack() as services:
        services.enter_context(authority.running(before))
        centre = Centre(tmp_path, authority.port, debian.wheelhouse())
        centre.push(seed=0)
        token = authority.token("server", before)
        before.roadcast("server", "enrol", "--config", centre.file, "--token", token)
        server = services.enter_context(ExitStack())
        server.enter_context(centre.running())
        first_use(board, authority, centre, steps)
        say(f"once for a fleet:\n{before}\nfor this device:\n{steps}")

        wait_for(lambda: centre.state().get("release") == 1, "release 1 serving", within_s=WITHIN_S)
        say(board.run("uname", "-m") + board.run(ROADCAST, "version"))
        say(board.run(ROADCAST, "doctor", "--config", CONFIG, user="roadcast", good=False))
        assert pointer(board) == 1
        cut_off_while_it_installs(board, centre)
        began = time.monotonic()
        wait_for(lambda: centre.state().get("release") == 2, "release 2 serving", within_s=WITHIN_S)
        say(f"release 2 serves {time.monotonic() - began:.0f} s after the agent of the last boot was ready")
        assert pointer(board) == 2
        frames = centre.state()["counts"]["frames"]
        wait_for(lambda: centre.state()["counts"]["frames"] > frames, "more frames", within_s=WITHIN_S)
        say(roadcast("devices", "list", "--state-dir", tmp_path / "server"))
        if os.environ.get("ROADCAST_QEMU_TRAIN"):
            server.close()
            answer_a_round(board, centre, server)
        assert board.stop_agent() == 0
