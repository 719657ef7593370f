"""Texts by which a Jetson says what it runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.boards.jetson import L4t, PowerMode, parse_package, parse_parts, parse_power_mode, parse_release


def test_a_release_with_a_twelve_hour_date_is_read() -> None:
    """The text after DATE is kept as it stands; no part of it decides anything."""
    line = (
        "# R39 (release), REVISION: 2.0, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Mon Jun  1 09:28:48 PM UTC 2026"
    )
    assert parse_release(line + "\n# KERNEL_VARIANT: oot") == L4t(
        39, "2.0", "generic", "Mon Jun  1 09:28:48 PM UTC 2026"
    )


def test_a_package_version_stands_in_for_the_release_file() -> None:
    """39.2.0-20260601141651 is R39.2.0; what is no version is nothing."""
    assert parse_package("39.2.0-20260601141651") == L4t(39, "2.0")
    assert parse_package("36.4.7-20250918154033+x") == L4t(36, "4.7")
    assert parse_package("no packages found") is None
    assert str(L4t(36, "4.7")) == "R36.4.7"


@pytest.mark.parametrize(
    ("compatible", "parts"),
    [
        ("nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0", ("p3767-0005", "p3768-0000")),
        ("nvidia,p3509-0000+p3668-0000\0nvidia,p3668-0000\0nvidia,tegra194", ("p3668-0000", "p3509-0000")),
        ("raspberrypi,5-model-b\0brcm,bcm2712\0", ()),
        ("", ()),
    ],
)
def test_parts_come_module_first_and_without_suffix(compatible: str, parts: tuple[str, ...]) -> None:
    """`-super` and the carrier's number do not hide the module's."""
    assert parse_parts(compatible) == parts


@pytest.mark.parametrize(
    ("query", "name", "number", "largest"),
    [
        ("NV Power Mode: MAXN\n0\n", "MAXN", 0, True),
        ("NV Power Mode: 15W\n0\n", "15W", 0, False),
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER", 2, True),
        ("NV Power Mode: MODE_40W\n3", "MODE_40W", 3, False),
        ("NV Power Mode: MODE_10W_DESKTOP\r\n5\r\n", "MODE_10W_DESKTOP", 5, False),
        ("NVPM VERB: x\nNV Fan Mode:quiet\nNVPM VERB: Current mode: NV Power Mode: 25W\n2\n", "25W", 2, False),
        ("NV Power Mode: 25W", "25W", None, False),
    ],
)
def test_a_mode_is_known_by_its_name(query: str, name: str, number: int | None, largest: bool) -> None:
    """Mode 0 is the largest on one board and the smallest but one on another."""
    mode = parse_power_mode(query)
    assert mode is not None
    assert (mode.name, mode.number, mode.is_largest) == (name, number, largest)


def test_a_query_that_needs_root_falls_back_on_the_status_file() -> None:
    """The number comes from the status file, the name from the modes on offer; a comment is none."""
    config = "# < POWER_MODEL ID=1 NAME=NO >\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL NAME=7W ID=1 >\nCPU 1\n"
    assert parse_power_mode("", config, "pmode:0001 fmode:quiet") == PowerMode("7W", 1, {0: "15W", 1: "7W"})
    unnamed = parse_power_mode("", "", "pmode:0004")
    assert unnamed == PowerMode(None, 4)
    assert unnamed.is_largest is None
    assert parse_power_mode("NVPM ERROR: root needed", config) is None


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=100))
def test_no_text_raises(query: str, config: str, status: str) -> None:
    """Whatever the tools print, the parsers answer; a mode's number is never made up."""
    parse_release(query)
    parse_package(query)
    parse_parts(query)
    mode = parse_power_mode(query, config, status)
    assert mode is None or mode.number is None or str(mode.number) in query + status.replace("0", "") + "0"
