"""Published lines of `tegrastats`, and lines that nobody published."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.boards.power import Power
from devices.boards.tegrastats import Core, Tegrastats, parse_tegrastats
from tests.fakes.boards import tegrastats_lines

MIB, MHZ = 1 << 20, 1_000_000
LINES = tegrastats_lines()

WANTED = {
    "nano-jp4.6.1": (1923, 4, 0.0, 76, 45.0, Power(1.75, estimated=False)),
    "xavier-nx-jp4": (5246, 6, 0.0, 1109, 33.5, Power(6.14, estimated=False)),
    "xavier-nx-jp5.1.2": (3168, 6, 0.0, 114, 46.5, Power(2.763, estimated=False)),
    "tx2": (3276, 6, 0.0, 114, 42.5, Power(5.297, estimated=False)),
    "agx-orin-64g-root": (4321, 12, 0.0, 0, 44.562, Power(7.056, estimated=True)),
    "agx-orin-jp7.2": (20642, 12, 0.12, 1300, 52.968, Power(13.907, estimated=True)),
    "orin-nano-jp6-root": (6185, 6, 0.63, 621, 53.968, Power(12.479, estimated=False)),
    "orin-nano-jp6-user": (3452, 6, 0.0, None, 50.25, Power(4.824, estimated=False)),
    "orin-nano-offline-cores": (3162, 6, 0.01, None, 62.843, Power(3.913, estimated=False)),
    "orin-nano-jp7.2-noswap": (1803, 6, 0.12, 306, 48.0, Power(4.093, estimated=False)),
    "agx-thor-r39": (8353, 4, 0.87, 1574, 66.625, Power(124.486, estimated=False)),
    "agx-thor-r39-idle": (3429, 3, None, 1574, 51.218, Power(28.906, estimated=False)),
    "tx1-2018": (3607, 4, 0.39, 76, None, None),
}
"""Line → RAM in MiB, cores, GPU load, GPU MHz, hottest zone, total power."""


@pytest.mark.parametrize("board", LINES)
def test_a_published_line_is_read(board: str) -> None:
    """Memory, cores, GPU, heat and power of every line, in SI units; what a line does not say is None."""
    ram, cores, load, mhz, hottest, power = WANTED[board]
    said = parse_tegrastats(LINES[board])
    assert said.ram_used == ram * MIB
    assert len(said.cores) == cores
    assert said.gpu_load == load
    assert said.gpu_hz == (None if mhz is None else mhz * MHZ)
    assert max(said.zones.values(), default=None) == hottest
    assert (said.power is None) == (power is None)
    if said.power is not None and power is not None:
        assert said.power.watts == pytest.approx(power.watts)
        assert said.power.estimated == power.estimated


def test_every_line_has_an_expectation() -> None:
    """A line that is added is not skipped."""
    assert set(WANTED) == set(LINES)


def test_what_differs_between_releases() -> None:
    """Time, swap, a shared clock, cores that are off, a memory clock without load, a rail that is not connected."""
    thor, tx1 = parse_tegrastats(LINES["agx-thor-r39-idle"]), parse_tegrastats(LINES["tx1-2018"])
    orin = parse_tegrastats(LINES["agx-orin-64g-root"])
    assert thor.time == "08-08-2026 20:58:23"
    assert thor.cores == (Core(0.0, 2601 * MHZ), Core(0.05, 2601 * MHZ), Core())
    assert (thor.swap_used, thor.memory_load, thor.memory_hz) == (None, None, 4266 * MHZ)
    assert tx1.time is None
    assert tx1.cores[0] == Core(0.17, 1734 * MHZ)
    assert (tx1.swap_used, tx1.memory_load) == (873 * MIB, 0.01)
    assert "NC" not in orin.rails
    assert "gpu" not in orin.zones
    assert "pmic" not in parse_tegrastats(LINES["nano-jp4.6.1"]).zones
    assert parse_tegrastats(LINES["orin-nano-offline-cores"]).rails["VDD_CPU_GPU_CV"] == 0.598


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(line: str) -> None:
    """A line of anything gives what it holds, and without a digit nothing."""
    said = parse_tegrastats(line)
    if not any(character in line for character in "0123456789"):
        assert said.cores in {(), *[(Core(),) * n for n in range(1, 201)]}
        assert msgspec.structs.replace(said, cores=()) == Tegrastats()


@given(
    st.sampled_from(sorted(LINES.values())),
    st.lists(st.tuples(st.integers(0, 600), st.characters(exclude_characters="0")), max_size=12),
)
def test_a_garbled_line_invents_no_zero(line: str, edits: list[tuple[int, str]]) -> None:
    """Without the digit 0 in a line there is no reading of 0, whatever else is changed in it."""
    text = list(line.replace("0", "7"))
    for place, character in edits:
        text[place % len(text)] = character
    said = parse_tegrastats("".join(text))
    cores = [value for core in said.cores for value in (core.load, core.clock_hz)]
    others = [said.ram_used, said.ram_total, said.swap_used, said.gpu_load, said.gpu_hz, said.memory_load]
    assert 0 not in [*cores, *others, said.memory_hz, *said.zones.values(), *said.rails.values()]
