"""Kept plans: found again by everything they depend on, bounded in number, never a damaged one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from devices.boards.machine import Machine
from devices.runners.trt_build import Built, Order
from devices.runners.trt_plans import KEPT, Key, Plans, key_of
from edge_protocol.errors import StoreError

KEY = Key("a" * 64, "10.3.0", "8.7", "R36.4.3", "15W", "file", 8, ())


def test_a_plan_is_found_again(tmp_path: Path) -> None:
    """With its facts, and with what the build learnt for the next one."""
    plans = Plans(tmp_path / "plans")
    assert plans.find(KEY) is plans.estimate(KEY) is None
    assert plans.timing(KEY) == b""
    plans.put(KEY, Built(b"plan", b"timing"), b"weights", 61.0)
    plan, kept = plans.find(KEY) or (b"", None)
    assert plan == b"plan"
    assert kept is not None
    assert kept.key == KEY
    assert plans.estimate(KEY) == 61.0
    assert plans.timing(msgspec.structs.replace(KEY, template="b" * 64)) == b"timing"


@pytest.mark.parametrize(
    "change",
    [
        {"template": "b" * 64},
        {"tensorrt": "10.16.1"},
        {"capability": "8.6"},
        {"l4t": "R36.5.0"},
        {"power_mode": "MAXN"},
        {"precision": "fp16"},
        {"batch": 4},
        {"replaceable": ("head.weight",)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_is_not_found_for_anything_else(change: dict[str, object], tmp_path: Path) -> None:
    """Every part of the key counts."""
    plans = Plans(tmp_path)
    plans.put(KEY, Built(b"plan", b"timing"), b"weights", 1.0)
    assert plans.find(msgspec.structs.replace(KEY, **change)) is None


def test_a_damaged_plan_is_not_found(tmp_path: Path) -> None:
    """Neither one whose bytes changed nor one whose facts cannot be read; a forgotten one is gone."""
    plans = Plans(tmp_path)
    plans.put(KEY, Built(b"plan", b""), b"", 1.0)
    (tmp_path / f"{KEY.name}.plan").write_bytes(b"plam")
    assert plans.find(KEY) is None
    (tmp_path / f"{KEY.name}.json").write_bytes(b"{")
    assert plans.find(KEY) is plans.estimate(KEY) is None
    plans.forget(KEY)
    assert not list(tmp_path.glob(f"{KEY.name}*"))


def test_only_the_newest_plans_are_kept(tmp_path: Path) -> None:
    """A board's disk does not fill up with plans of older templates."""
    plans = Plans(tmp_path)
    keys = [msgspec.structs.replace(KEY, template=str(number)) for number in range(KEPT + 2)]
    for key in keys:
        plans.put(key, Built(b"plan", b""), b"", 1.0)
    assert [plans.find(key) is not None for key in keys] == [False] * 2 + [True] * KEPT
    assert len(list(tmp_path.glob("*.plan"))) == KEPT


def test_a_disk_that_refuses_is_an_error_of_ours(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "plans").write_text("")
    with pytest.raises(StoreError, match="cannot be kept"):
        Plans(tmp_path / "plans").put(KEY, Built(b"", b""), b"", 1.0)


def test_a_key_says_what_the_board_is(tmp_path: Path) -> None:
    """L4T comes from the board's own file; a machine that is no Jetson leaves it empty."""
    board = Machine(tmp_path, lambda argv: None)
    assert key_of(b"t", Order("s"), "10.3.0", "8.7", board).l4t == ""
    (tmp_path / "etc").mkdir()
    release = (
        "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025"
    )
    (tmp_path / "etc/nv_tegra_release").write_text(release)
    assert key_of(b"t", Order("s"), "10.3.0", "8.7", Machine(tmp_path, lambda argv: None)).l4t == "R36.4.3"


def test_older_plans_make_room_on_a_full_disk(tmp_path: Path) -> None:
    """They are deleted before the new one is given up; what cannot be kept after all leaves nothing half written."""
    plans, other = Plans(tmp_path), msgspec.structs.replace(KEY, template="b" * 64)
    plans.put(KEY, Built(b"plan", b"t"), b"", 1.0)
    (tmp_path / f"{other.name}.json.part").mkdir()
    with pytest.raises(StoreError, match=r"4 bytes cannot be kept.*free space, or it is built again at the next start"):
        plans.put(other, Built(b"plan", b"t"), b"", 1.0)
    assert plans.find(KEY) is plans.find(other) is None
    assert not list(tmp_path.glob("*.plan"))
    assert plans.timing(KEY) == b"t", "what was learnt is small, and makes the next build faster"


def test_what_was_learnt_for_old_versions_goes(tmp_path: Path) -> None:
    """A timing cache for each version and power mode would pile up over the years."""
    plans = Plans(tmp_path)
    for number in range(KEPT + 3):
        plans.put(msgspec.structs.replace(KEY, tensorrt=f"10.{number}"), Built(b"p", b"t"), b"", 1.0)
    assert len(list(tmp_path.glob("*.timing"))) == KEPT


def test_a_workplace_is_gone_afterwards(tmp_path: Path) -> None:
    """Also after an error; what a killed process left is swept; a disk that refuses is an error of ours."""
    plans = Plans(tmp_path / "plans")
    with pytest.raises(RuntimeError), plans.workplace() as place:  # noqa: PT012
        (place / "file").touch()
        raise RuntimeError
    assert not list((tmp_path / "plans").iterdir())
    (tmp_path / "plans" / "building-old").mkdir()
    (tmp_path / "plans" / "x.plan.part").touch()
    plans.sweep()
    assert not list((tmp_path / "plans").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"), Plans(tmp_path / "file").workplace():
        pass
