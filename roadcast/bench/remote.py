"""This side of ``bench run --ssh``: packs a model, asks the target, unpacks what comes back; owns no connection."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from devices.latency.result import Result
from devices.latency.soak import Soak
from devices.provision.connection import Login, Said, connected
from devices.provision.site import SshConfig
from edge_protocol.errors import DataError, NotReadyError, RoadcastError, TransportError
from export.folder import CARD, GOLDEN, TEMPLATE, WEIGHTS, read_part
from roadcast.bench.job import Job
from roadcast.bench.parcel import Parcel, answered, pack

_LACKS = 92
_HALF = f"""import sys
try:
    from roadcast.bench.target import main
except ImportError as error:
    sys.exit(print(error, file=sys.stderr) or {_LACKS})
main()"""
_NOT_FOUND = (126, 127)
"""A shell's statuses of a program that cannot be run, or is not there."""


def run_on(target: SshConfig, login: Login, python: str, path: Path, job: Job) -> Result | Soak:
    """Measure a model on another machine, which needs Roadcast but not the model.

    Args:
        target: where it is reached.
        login: how to get in.
        python: its Python that has Roadcast.
        path: here: a folder of ``roadcast export build``, or an ONNX file.
        job: how.

    Raises:
        DataError: no such model here.
        NotReadyError: the host key or the login is refused, or Python or Roadcast are not there.
        TransportError: no connection, or it was cut.
        RoadcastError: what the run there raised.
    """
    parcel = parcel_of(path, job)
    said = asyncio.run(_asked(target, login, python, parcel))
    if said.status != 0:
        raise _failure(target, python, said)
    return answered(said.stdout).unpack(target.host)


def parcel_of(path: Path, job: Job) -> Parcel:
    """Pack a model.

    Raises:
        DataError: no such file.
        NotReadyError: the folder is no artifact.
    """
    name = path.resolve().name
    if path.is_dir():
        return Parcel(job, name, {part: read_part(path, part) for part in (CARD, TEMPLATE, WEIGHTS, GOLDEN)})
    try:
        return Parcel(job, name, {name: path.read_bytes()})
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}; name an ONNX file, or a folder that 'export build' wrote"
        ) from error


async def _asked(target: SshConfig, login: Login, python: str, parcel: Parcel) -> Said:
    async with connected(target, login) as connection:
        command = f"cd / && exec {shlex.join([python, '-c', _HALF])}"
        return await connection.ask(command, pack(parcel), hold=True)


def _failure(target: SshConfig, python: str, said: Said) -> RoadcastError:
    lines = said.stderr.decode(errors="replace").splitlines()
    last = lines[-1] if lines else "it said nothing"
    if said.status is None:
        return TransportError(f"{target.host}: the connection was cut while it measured; run it again")
    if said.status in _NOT_FOUND:
        return NotReadyError(f"{target.host}: no {python} there; name the Python that has roadcast with --python")
    if said.status == _LACKS:
        return NotReadyError(
            f"{target.host}: {python} has no roadcast, or an older one ({last}); install it there with "
            "'roadcast flash' or pip, or name another with --python"
        )
    return NotReadyError(f"{target.host}: its roadcast left with {said.status}: {last}")
