"""The target's half of ``bench run --ssh``: a parcel on stdin, its answer on stdout; owns nothing that outlives it.

Standard input stays open while the run goes on: when it ends, whoever asked is gone, and the run stops.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO

from edge_protocol.errors import RemoteProtocolError, RoadcastError
from roadcast.bench.parcel import LENGTH, MARK, Answer, Parcel, opened
from roadcast.bench.running import run_job

_ALONE = 93
"""Exit code when nobody waits for the answer any more."""


def main() -> None:
    """Measure what stdin says, and say so on stdout."""
    with tempfile.TemporaryDirectory(prefix="roadcast-bench-") as folder:
        import msgspec

        tempfile.tempdir = folder  # what a run leaves when nobody waits for it any more goes with it
        answer = _answer(sys.stdin.buffer, Path(folder))
        sys.stdout.buffer.write(MARK + msgspec.msgpack.encode(answer))
        sys.stdout.buffer.flush()


def _answer(said: BinaryIO, folder: Path) -> Answer:
    try:
        parcel = _read(said)
        threading.Thread(target=_leave_when_alone, args=(said.fileno(), folder), daemon=True).start()
        return Answer(run_job(_laid_out(parcel, folder), parcel.job))
    except RoadcastError as error:
        return Answer(None, type(error).__name__, str(error))


def _read(said: BinaryIO) -> Parcel:
    size = int.from_bytes(said.read(LENGTH), "big")
    body = said.read(size)
    if not size or len(body) != size:
        raise RemoteProtocolError("truncated", f"{len(body)} of {size} bytes arrived")
    return opened(body, Parcel)


def _laid_out(parcel: Parcel, folder: Path) -> Path:
    place = folder / parcel.name
    if set(parcel.files) == {parcel.name}:
        place.write_bytes(parcel.files[parcel.name])
        return place
    place.mkdir()
    for name, content in parcel.files.items():
        (place / name).write_bytes(content)
    return place


def _leave_when_alone(stdin: int, folder: Path) -> None:
    while os.read(stdin, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(_ALONE)


if __name__ == "__main__":
    main()
