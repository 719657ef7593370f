"""What is read of a board, from files as the kernel writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_client.board_watch import BoardWatch
from edge_client.governor import Reading


@dataclass
class Counted:
    """Frames so far."""

    frames: int = 0
    queue_dropped: int = 0


@dataclass
class Inferring:
    """An inference loop as the watch sees it."""

    counters: Counted = field(default_factory=Counted)
    latency: dict[str, float] = field(default_factory=dict)

    def latency_ms(self) -> dict[str, float]:
        """Percentiles of the last frames."""
        return self.latency


def zone(root: Path, number: int, kind: str, temp: str) -> None:
    """A thermal zone."""
    folder = root / f"sys/class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(kind + "\n")
    (folder / "temp").write_text(temp + "\n")


def test_the_hottest_zone_counts(tmp_path: Path) -> None:
    """In degrees Celsius; what counts as one is `devices.boards.thermal`'s."""
    watch = BoardWatch(Inferring(), tmp_path)
    assert watch().celsius is None
    zone(tmp_path, 0, "CPU-therm", "41500")
    zone(tmp_path, 1, "GPU-therm", "47250")
    assert BoardWatch(Inferring(), tmp_path)().celsius == 47.25


def test_a_reading_tells_of_the_time_since_the_last(tmp_path: Path) -> None:
    """Drops are a share of the frames that came meanwhile; load is per core; what is not there is not told."""
    inference = Inferring()
    watch = BoardWatch(inference, tmp_path, cores=4)
    assert watch() == Reading()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("3.00 2.00 1.00 1/200 4711\n")
    inference.counters = Counted(frames=100, queue_dropped=25)
    inference.latency = {"latency_p95_ms": 12.5}
    assert watch() == Reading(drop_share=0.25, latency_ms=12.5, load=0.75)
    inference.counters = Counted(frames=200, queue_dropped=25)
    assert watch().drop_share == 0
    assert watch().drop_share is None
