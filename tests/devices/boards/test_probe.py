"""Every recorded board answers as its entry says, and nothing makes a probe raise or invent."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.boards import BoardFacts, Machine, board_of, plant, probe, record, recorded
from devices.boards.thermal import headroom, hottest
from edge_protocol.errors import DataError, StoreError
from tests.fakes.boards import expected, fake_board, names, recording


def _told(facts: BoardFacts) -> dict[str, object]:
    """A probe's findings under the short names of the fixtures."""
    over = [rail.name for rail in facts.rails if rail.over_current]
    mode = facts.power_mode
    return {
        "board": facts.board,
        "l4t": None if facts.l4t is None else str(facts.l4t),
        "date": None if facts.l4t is None else facts.l4t.date,
        "mode": None if mode is None else mode.name,
        "largest": None if mode is None else mode.is_largest,
        "hottest": hottest(facts.zones),
        "headroom": _rounded(headroom(facts.zones)),
        "watts": _rounded(None if facts.power is None else facts.power.watts),
        "estimated": None if facts.power is None else facts.power.estimated,
        "rails": len(facts.rails),
        "gpu": None if facts.gpu is None else facts.gpu.load,
        "throttled": facts.throttling.active,
        "events": facts.throttling.events,
        "over_current": ",".join(over) or None,
        "disk": facts.disks[0].kind if facts.disks else None,
        "wear": facts.disks[0].wear if facts.disks else None,
        "cameras": len(facts.cameras),
        "clock": facts.clock.synchronised,
        "cores": facts.cores,
        "signal": None if facts.modem is None else facts.modem.signal,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


@pytest.mark.parametrize("name", names())
def test_a_recorded_board_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    """What each entry expects is found, and a sensor that is off has no temperature."""
    facts = probe(fake_board(name, tmp_path))
    wanted = dict(expected(name))
    off = wanted.pop("unknown_zone", None)
    told = _told(facts)
    assert {key: told[key] for key in wanted} == wanted
    if off is not None:
        assert [zone.celsius for zone in facts.zones if zone.name == off] == [None]
    assert "pmic-die" not in {zone.name for zone in facts.zones}
    assert facts.memory.total is not None
    assert facts.root is not None
    assert facts.root.free == 33_000_000 << 10


def test_there_are_boards_enough() -> None:
    """Fourteen boards and releases at least, and every board type of the table but none unknown to it."""
    assert len(names()) >= 14
    assert None not in {expected(name)["board"] for name in names()}


def test_a_sensor_that_is_off_does_not_block_or_raise(tmp_path: Path) -> None:
    """A file that answers EAGAIN, as power-gated sensors do, has no text; the other zones are read."""
    machine = fake_board("jetson-orin-nano-super-r36.4.7", tmp_path)
    gated = tmp_path / "sys/class/thermal/thermal_zone2/temp"
    os.mkfifo(gated)
    writer = os.open(gated, os.O_RDWR)
    try:
        zones = {zone.name: zone.celsius for zone in probe(machine).zones}
    finally:
        os.close(writer)
    assert zones["cv0"] is None
    assert zones["cpu"] == 53.968


def test_a_recording_answers_like_the_board(tmp_path: Path) -> None:
    """What is recorded from one machine and planted elsewhere gives the same facts."""
    machine = fake_board("jetson-orin-nx-r36.4.4", tmp_path / "board")
    plant(record(machine), tmp_path / "copy")
    assert probe(recorded(tmp_path / "copy")) == probe(machine)


def test_a_recording_names_nobody(tmp_path: Path) -> None:
    """A serial number, a modem's IMEI and number, and a share's user stay behind; what is read is kept."""
    for path, text in {
        "proc/cpuinfo": "processor\t: 0\nSerial\t\t: 10000000deadbeef\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
        "proc/mounts": "//10.9.8.7/cams /mnt cifs rw,username=traffic 0 0\n/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    modem = "modem.3gpp.imei : 490154203237518\nmodem.generic.own-numbers.value[1] : +4917012345\n"
    answers = {"mmcli": f"{modem}modem.generic.state : connected\nmodem.generic.signal-quality.value : 70\n"}
    machine = Machine(tmp_path, lambda argv: answers.get(argv[0]))
    kept = record(machine)
    told = repr(kept)
    for private in ("deadbeef", "490154203237518", "+4917012345", "10.9.8.7", "traffic"):
        assert private not in told
    plant(kept, tmp_path / "again")
    again, here = probe(recorded(tmp_path / "again")), probe(machine)
    assert (again.root, again.modem, again.processor) == (here.root, here.modem, "Raspberry Pi 4 Model B Rev 1.4")
    assert None not in (again.root, again.modem)


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    """The real thing, whatever it is: recorded and probed again, its fixed facts agree."""
    plant(record(Machine()), tmp_path / "here")
    again, here = probe(recorded(tmp_path / "here")), probe(Machine())
    assert (again.machine, again.cores, again.memory.total) == (here.machine, here.cores, here.memory.total)
    assert again.machine == os.uname().machine
    assert here.memory.total == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_recording_s_commands_do_not_run_here(tmp_path: Path) -> None:
    """A command that was not recorded has no answer, though this machine could give one; so in a bare root tree."""
    assert recorded(tmp_path).run("uname", "-m") is None
    assert fake_board("x86-64", tmp_path / "x").run("uname", "-s") is None


def test_a_recording_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    """No folder, torn commands, a folder that holds something, a path that leads out of it."""
    with pytest.raises(DataError, match="no such folder"):
        recorded(tmp_path / "none")
    (tmp_path / "commands.json").write_text("{")
    with pytest.raises(DataError, match="record the board again"):
        recorded(tmp_path)
    with pytest.raises(StoreError, match="not empty"):
        plant(recording("x86-64"), tmp_path)
    bad = msgspec.structs.replace(recording("x86-64"), files={"../etc/passwd": "x"})
    with pytest.raises(DataError, match="leads out"):
        plant(bad, tmp_path / "new")
    assert not (tmp_path.parent / "etc").exists()


def test_nothing_is_known_of_nothing(tmp_path: Path) -> None:
    """An empty tree gives facts without a single number: no zero is invented."""
    facts = msgspec.to_builtins(probe(recorded(tmp_path)))
    assert _numbers(facts) == []


def test_a_command_that_fails_or_is_missing_says_nothing() -> None:
    """An exit code, no such program, an argument that cannot be passed."""
    machine = Machine()
    assert machine.run("false") is None
    assert machine.run("no-such-program-here") is None
    assert machine.run("printf", "a\0b") is None
    assert machine.run("printf", "x") == "x"


def test_the_module_decides_before_the_name() -> None:
    """A carrier of another maker has any name; its module tells the board. No part and no name: the processor."""
    board = board_of("Some Carrier", ("p3767-0001", "p3768-0000"), "aarch64")
    assert board is not None
    assert board.name == "jetson-orin-nx"
    assert board_of("Toradex Verdin", (), "aarch64") is None
    pc = board_of(None, (), "x86_64")
    assert pc is not None
    assert pc.name == "x86-64"


@settings(max_examples=30)
@given(name=st.sampled_from(names()), seed=st.integers(0, 2**32), noise=st.lists(st.binary(max_size=40), min_size=8))
def test_a_damaged_board_neither_raises_nor_gains_a_zero(
    name: str, seed: int, noise: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files torn, garbled, emptied and removed, none with the digit 0: the probe answers, and nothing is 0."""
    chance, folder = random.Random(seed), tmp_path_factory.mktemp("board")
    try:
        plant(msgspec.structs.replace(recording(name), commands={}), folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "commands.json"):
            _damage(path, chance, noise)
        assert [number for number in _numbers(msgspec.to_builtins(probe(recorded(folder)))) if number == 0] == []
    finally:
        shutil.rmtree(folder)


def test_readings_that_go_missing_become_unknown(tmp_path: Path) -> None:
    """Each file of a board unreadable in turn: no reading turns into 0 that was not 0 before."""
    machine = fake_board("jetson-orin-nano-super-r36.4.7", tmp_path)
    before = _zeros(probe(machine))
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file() and path.name != "commands.json":
            kept = path.read_bytes()
            path.write_bytes(b"")
            assert _zeros(probe(recorded(tmp_path))) <= before, path
            path.write_bytes(kept)


def _damage(path: Path, chance: random.Random, noise: list[bytes]) -> None:
    data = path.read_bytes()
    damaged = (data, data[: chance.randrange(len(data) + 1)], chance.choice(noise), data.replace(b"1", b"-"), b"")
    path.write_bytes(chance.choice(damaged).replace(b"0", b"7"))
    if chance.random() < 0.1:
        path.unlink()


def _numbers(tree: object) -> list[float]:
    match tree:
        case bool():
            return []
        case int() | float():
            return [tree]
        case dict():
            return [number for value in tree.values() for number in _numbers(value)]
        case list() | tuple():
            return [number for value in tree for number in _numbers(value)]
        case _:
            return []


def _zeros(facts: BoardFacts) -> int:
    return sum(number == 0 for number in _numbers(msgspec.to_builtins(facts)))
