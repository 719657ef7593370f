"""Static facts of board types and JetPacks, from ``boards.yaml``. Owns no reading of a board."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from edge_protocol.task import Tier


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A board type.

    Attributes:
        name: its short name, such as ``jetson-orin-nano``.
        title: its name for people.
        parts: beginnings of module part numbers that mean this board.
        names: words in the device tree's ``model`` that mean it.
        compute_capability: of its GPU for CUDA; None without one.
        memory_gib: sizes that are sold.
        power_modes: names that occur; the firmware decides which there are.
        precisions: number formats that its accelerator computes in, through TensorRT where it has one.
        l4t: first numbers of the L4T releases that run on it.
        tier: the student that fits it, unless measured otherwise.
        note: what differs from the sources of the whole table.
    """

    name: str
    title: str
    parts: tuple[str, ...]
    names: tuple[str, ...]
    compute_capability: str | None
    memory_gib: tuple[int, ...]
    power_modes: tuple[str, ...]
    precisions: tuple[Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8", "fp4"], ...]
    l4t: tuple[int, ...]
    tier: Tier
    note: str = ""


class JetPack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a generation of JetPack brings: versions of Ubuntu, its C library, Python, CUDA and TensorRT.

    Attributes:
        gpu: in a sentence, who makes packages that use its GPU.
    """

    l4t: int
    jetpack: str
    ubuntu: str
    glibc: str
    python: str
    cuda: str
    tensorrt: str
    gpu: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file: where the facts come from, boards, JetPacks."""

    sources: dict[str, str]
    boards: tuple[Board, ...]
    jetpacks: tuple[JetPack, ...]


@cache
def table() -> Table:
    """Read the file, once."""
    from edge_protocol.config import load_config  # noqa: PLC0415  # a monitor that never asks need not load YAML

    text = Path(__file__).with_name("boards.yaml").read_text(encoding="utf-8")
    return load_config(text, Table, where="boards.yaml")


def boards() -> tuple[Board, ...]:
    """Every board type, in the order of the file."""
    return table().boards


def board_of(model: str | None, parts: tuple[str, ...], machine: str | None) -> Board | None:
    """The type of a board: by its module's part number, else by words of its name, else by its processor.

    Args:
        model: its name, from the device tree or DMI.
        parts: part numbers, module first.
        machine: what ``uname -m`` says.
    """
    for part in parts:
        for board in boards():
            if part.startswith(board.parts):
                return board
    for board in boards():
        if any(name in (model or "") for name in board.names):
            return board
    return next((board for board in boards() if machine in {"x86_64", "AMD64"} and board.name == "x86-64"), None)


def jetpack_of(l4t: int | None) -> JetPack | None:
    """The JetPack that an L4T release belongs to; None when that generation is not known yet."""
    return next((jetpack for jetpack in table().jetpacks if jetpack.l4t == l4t), None)
