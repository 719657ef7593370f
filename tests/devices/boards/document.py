"""``python -m tests.devices.boards.document``: writes docs/boards.md from profiles and recorded boards."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from devices.boards import BoardFacts, boards, jetpack_of, probe
from devices.boards.profiles import table
from devices.boards.thermal import hottest
from tests.fakes.boards import entries, fake_board, names

_HEAD = """# Boards

Generated from `devices/boards/boards.yaml` and the recorded boards of the tests by `make docs`; a test fails when this
file is stale. Nothing here was run on a board by us: texts that owners of boards published are read as they stand, the
rest of each recording is reconstructed ([which is which](../tests/devices/fixtures/README.md)).

`roadcast devices probe` says what your board tells; `roadcast devices record DIR` keeps it, for this table too.
"""


def document() -> str:
    """The whole text."""
    return f"{_HEAD}\n{_boards()}\n{_jetpacks()}\n{_recorded()}"


def main(path: Path) -> None:
    """Write the document to `path`."""
    path.write_text(document(), encoding="utf-8")


def _boards() -> str:
    head = ("board", "compute capability", "memory, GiB", "computes in", "JetPack", "power modes", "tier")
    rows = []
    for board in boards():
        packs = [pack.jetpack for pack in map(jetpack_of, board.l4t) if pack is not None]
        sizes = ", ".join(map(str, board.memory_gib))
        modes, formats = ", ".join(board.power_modes), ", ".join(board.precisions)
        rows.append((board.title, board.compute_capability, sizes, formats, ", ".join(packs), modes, board.tier))
    sources = "".join(f"- `{fact}`: {source}\n" for fact, source in table().sources.items())
    notes = "".join(f"- {board.title}: {board.note}\n" for board in boards() if board.note)
    said = "Power modes are names that occur; the firmware decides which a board has, and numbers change with it."
    return f"## What a board type is\n\n{_table(head, rows)}\n{said}\n\n{notes}\nSources:\n\n{sources}"


def _jetpacks() -> str:
    head = ("L4T", "JetPack", "Ubuntu", "its Python", "CUDA", "TensorRT")
    rows = [(f"R{p.l4t}", p.jetpack, p.ubuntu, p.python, p.cuda, p.tensorrt) for p in table().jetpacks]
    note = "Roadcast needs Python 3.10: on JetPack 4 and 5 that is a container or a Python of your own, on the CPU.\n"
    gpu = "".join(f"- JetPack {p.jetpack}: {p.gpu}.\n" for p in table().jetpacks)
    return f"## What a JetPack brings\n\n{_table(head, rows)}\n{note}\nPackages that use the GPU come from:\n\n{gpu}"


def _recorded() -> str:
    head = ("recording", "published by owners", "L4T", "power mode", "hottest", "power", "GPU load", "disk")
    rows = []
    for name in names():
        with TemporaryDirectory() as folder:
            facts = probe(fake_board(name, Path(folder)))
        rows.append((name, ", ".join(entries()[name]["real"]), *_found(facts)))
    note = "A dash: the board does not say. ~: a sum of rails.\n"
    return f"## What a probe finds in recorded boards\n\n{_table(head, rows)}\n{note}"


def _found(facts: BoardFacts) -> Sequence[object]:
    warm, power, gpu = hottest(facts.zones), facts.power, facts.gpu
    watts = None if power is None or power.watts is None else f"{'~' * power.estimated}{power.watts:.2f} W"
    load = None if gpu is None or gpu.load is None else f"{gpu.load:.1%}"
    disk = facts.disks[0].kind if facts.disks else None
    mode = facts.power_mode and facts.power_mode.name
    return (facts.l4t, mode, None if warm is None else f"{warm:.1f} °C", watts, load, disk)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join('-' if cell in {None, ''} else str(cell) for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/boards.md"))
