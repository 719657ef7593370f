"""Spoils bytes, seeded and fast: what comes out is near enough to legal to get past the first check."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

Deep: TypeAlias = Callable[[bytes, random.Random], bytes]
"""Spoils what bytes say and writes it down again, well formed."""

EDGES = (0, 1, 0x7F, 0x80, 0x90, 0x9F, 0xC0, 0xC1, 0xC6, 0xCB, 0xCF, 0xD9, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF, 0xFE, 0xFF)
"""Bytes at which formats change their mind: MessagePack's markers, signs, ends of ranges."""
SIZES = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\x7f\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\x80\x00\x00\x00",
    b"\xff" * 8,
)
"""Claims of four thousand million elements, or bytes."""
DEEP = (b"\x91" * 3000, b"[" * 3000, b'{"":' * 3000)
"""Lists in lists."""
MOST = 6
_DEEPER = 0.85


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes] = (b"",)) -> bytes:
    """Return `data` spoilt in one to six places; `others` are cut in now and then."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, MOST))):
        at = rng.randrange(len(spoilt)) if spoilt else 0
        match rng.randrange(9):
            case 0 if spoilt:
                spoilt[at] ^= 1 << rng.randrange(8)
            case 1 if spoilt:
                spoilt[at] = rng.choice(EDGES)
            case 2 if spoilt:
                spoilt[at] = rng.randrange(256)
            case 3:
                del spoilt[at:]
            case 4:
                del spoilt[at : at + rng.randint(1, 9)]
            case 5:
                spoilt[at:at] = rng.randbytes(rng.randint(1, 9))
            case 6:
                spoilt[at : at + rng.choice((0, 1, 5))] = rng.choice((*SIZES, *DEEP))
            case 7:
                spoilt[at:at] = spoilt[at : at + rng.randint(1, 64)] * rng.choice((1, 2, 200))
            case _:
                other = rng.choice(others)
                begin = rng.randrange(len(other) + 1)
                spoilt[at:] = other[begin:]
    return bytes(spoilt)


def nested(depth: int) -> Any:
    """Lists in lists."""
    made: Any = 0
    for _ in range(depth):
        made = [made]
    return made


EVIL: tuple[Any, ...] = (
    *(0, 1, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 1.5, 1e308, float("nan"), float("inf"), True, None),
    *("", "x", "x" * 600, "../../etc/passwd", "/", "a/b", "\0", "é" * 64, "server", "F64", "BF16", "BOOL"),
    *([], {}, [[]], {"": 0}, [0] * 300, nested(20), nested(900)),
)
BYTES: tuple[Any, ...] = (b"", bytes(1), bytes(31), bytes(32), bytes(33), bytes(64), b"\xff" * 300)


def spoil_tree(tree: Any, rng: random.Random, evil: Sequence[Any]) -> Any:
    """Return nested lists and objects with one value replaced, dropped or doubled."""
    deeper = isinstance(tree, list | dict) and tree and rng.random() < _DEEPER
    if deeper and isinstance(tree, list):
        at = rng.randrange(len(tree))
        spoilt: list[list[Any]] = [[], [tree[at]] * 2, *[[spoil_tree(tree[at], rng, evil)]] * 10]
        return [*tree[:at], *rng.choice(spoilt), *tree[at + 1 :]]
    if deeper:
        key = rng.choice(list(tree))
        rest = {name: item for name, item in tree.items() if name != key}
        new = rng.choice((key, key, key, "", "x" * 70, "other"))
        return rest if rng.random() < 1 - _DEEPER else {**rest, new: spoil_tree(tree[key], rng, evil)}
    if isinstance(tree, int) and rng.random() < 0.5:
        return rng.choice((tree - 1, tree + 1, tree + (1 << 40), float(tree), str(tree)))
    return rng.choice(evil)


def in_message(prefix: int) -> Deep:
    """Spoil MessagePack behind so many bytes."""

    def deep(data: bytes, rng: random.Random) -> bytes:
        tree = spoil_tree(msgspec.msgpack.decode(data[prefix:]), rng, (*EVIL, *BYTES))
        return data[:prefix] + msgspec.msgpack.encode(tree)

    return deep


def in_json(data: bytes, rng: random.Random) -> bytes:
    """Spoil JSON."""
    return json.dumps(spoil_tree(json.loads(data), rng, EVIL)).encode()


def in_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Spoil the header of safetensors, and say its length."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = mutate(data[8:end], rng, DEEP) if rng.random() < 1 - _DEEPER else in_json(data[8:end], rng)
    return len(header).to_bytes(8, "little") + header + data[end:]
