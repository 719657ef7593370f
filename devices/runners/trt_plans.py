"""Plans that were built on this board, kept by everything they depend on; owns no build.

A key that differs in anything finds nothing: after a change of JetPack, of the power mode or of the template a plan is
built again. The newest few are kept, and fewer when the disk is full.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Final

import msgspec

from devices.boards.jetson import read_l4t, read_power_mode
from devices.boards.machine import Machine
from devices.runners.trt_build import Built, Order, Precision
from edge_protocol.errors import StoreError

KEPT: Final = 4
_WORKPLACE: Final = "building-"


class Key(msgspec.Struct, frozen=True):
    """What a plan depends on, but for its weights, which a refit replaces.

    Attributes:
        template: SHA-256 of the graph.
        tensorrt: version.
        capability: of the GPU.
        l4t: NVIDIA's release, "" on other machines.
        power_mode: name or number, "" where there is none; kernels are chosen by how fast they were under it.
        precision, batch, replaceable: as ordered.
    """

    template: str
    tensorrt: str
    capability: str
    l4t: str
    power_mode: str
    precision: Precision
    batch: int
    replaceable: tuple[str, ...]

    @property
    def name(self) -> str:
        """A file name."""
        return sha256(msgspec.json.encode(self)).hexdigest()[:32]

    @property
    def timing_name(self) -> str:
        """Of what was learnt about kernels, which other templates share."""
        parts = (self.tensorrt, self.capability, self.l4t, self.power_mode)
        return sha256("\n".join(parts).encode()).hexdigest()[:32]


class Kept(msgspec.Struct, frozen=True):
    """A plan's facts.

    Attributes:
        plan: SHA-256 of the plan.
        weights: SHA-256 of the payload that it was built with.
        seconds: that the build took.
        key: what it was built for.
    """

    plan: str
    weights: str
    seconds: float
    key: Key


def key_of(template: bytes, order: Order, tensorrt: str, capability: str, machine: Machine | None = None) -> Key:
    """Return the key of a plan on this board."""
    machine = machine or Machine()
    l4t, mode = read_l4t(machine), read_power_mode(machine)
    return Key(
        template=sha256(template).hexdigest(),
        tensorrt=tensorrt,
        capability=capability,
        l4t=str(l4t or ""),
        power_mode="" if mode is None else str(mode.name or mode.number),
        precision=order.precision,
        batch=order.batch,
        replaceable=order.replaceable,
    )


class Plans:
    """A folder of plans, used by one process.

    Args:
        folder: made when something is put into it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: Key) -> tuple[bytes, Kept] | None:
        """Return a plan; None when there is none, or its file is damaged."""
        try:
            kept = msgspec.json.decode((self._folder / f"{key.name}.json").read_bytes(), type=Kept)
            plan = (self._folder / f"{key.name}.plan").read_bytes()
        except (OSError, msgspec.DecodeError):
            return None
        return (plan, kept) if kept.key == key and kept.plan == sha256(plan).hexdigest() else None

    def timing(self, key: Key) -> bytes:
        """What earlier builds of this board learnt; nothing at first."""
        with suppress(OSError):
            return (self._folder / f"{key.timing_name}.timing").read_bytes()
        return b""

    def estimate(self, key: Key) -> float | None:
        """Seconds that the longest kept build of this board took; None when there is none."""
        seconds = []
        for path in self._folder.glob("*.json"):
            with suppress(OSError, msgspec.DecodeError):
                kept = msgspec.json.decode(path.read_bytes(), type=Kept)
                seconds += [kept.seconds] * (kept.key.timing_name == key.timing_name)
        return max(seconds, default=None)

    def put(self, key: Key, built: Built, weights: bytes, seconds: float) -> None:
        """Keep a plan, and the newest `KEPT` only.

        Raises:
            StoreError: the disk refuses.
        """
        kept = Kept(sha256(built.plan).hexdigest(), sha256(weights).hexdigest(), seconds, key)
        files = {
            f"{key.timing_name}.timing": built.timing,
            f"{key.name}.plan": built.plan,
            f"{key.name}.json": msgspec.json.encode(kept),
        }
        try:
            self._write(files)
        except OSError:  # older plans make room
            self._keep(0)
            try:
                self._write(files)
            except OSError as error:
                self.forget(key)
                raise StoreError(
                    f"{self._folder}: a plan of {len(built.plan)} bytes cannot be kept: {error.strerror or error}; "
                    "free space, or it is built again at the next start"
                ) from error
        self._keep(KEPT)

    def _write(self, files: dict[str, bytes]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            part = self._folder / f"{name}.part"
            try:
                part.write_bytes(data)
                part.replace(self._folder / name)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def _keep(self, count: int) -> None:
        """Delete all but the newest plans, and what was learnt for boards of none of them."""
        with suppress(OSError):
            facts = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in facts[count:]:
                self._remove(path.stem)
            timings = sorted(self._folder.glob("*.timing"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in timings[max(count, 1) :]:
                path.unlink()

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder to build in, beside the plans; gone afterwards.

        Raises:
            StoreError: the disk refuses.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            place = Path(mkdtemp(prefix=_WORKPLACE, dir=self._folder))
        except OSError as error:
            raise StoreError(f"{self._folder}: cannot be written: {error.strerror or error}; free space") from error
        try:
            yield place
        finally:
            rmtree(place, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what a process that was killed left behind; nobody else may be building."""
        for path in self._folder.glob(f"{_WORKPLACE}*"):
            rmtree(path, ignore_errors=True)
        for path in self._folder.glob("*.part"):
            with suppress(OSError):
                path.unlink()

    def forget(self, key: Key) -> None:
        """Delete a plan that does not serve."""
        self._remove(key.name)

    def _remove(self, name: str) -> None:
        for ending in ("json", "plan"):
            with suppress(OSError):
                (self._folder / f"{name}.{ending}").unlink(missing_ok=True)
