"""`.npz` files from strangers: no pickle, and every size is known to be sane before memory is taken for it."""

from __future__ import annotations

import zipfile
import zlib
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edge_protocol.errors import DataError

MAX_BYTES = 1 << 30
"""Most bytes that the arrays of one pack may take in memory, all together."""
MAX_ARRAYS = 64
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_SUFFIX = ".npy"

Arrays = dict[str, npt.NDArray[Any]]


def read_arrays(path: Path, max_bytes: int = MAX_BYTES) -> Arrays:
    """All arrays of an `.npz` file.

    Raises:
        DataError: missing, truncated, not an `.npz`, with pickled objects, or larger than `max_bytes` once unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_ARRAYS:
                raise DataError(f"{path}: {len(members)} arrays; a pack has at most {MAX_ARRAYS}")
            if sum(member.file_size for member in members) > max_bytes:
                raise DataError(
                    f"{path}: would take more than {max_bytes >> 20} MiB of memory; split it into smaller packs"
                )
            return {member.filename.removesuffix(_SUFFIX): _read_member(archive, member) for member in members}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; `roadcast data list` shows the packs that are there") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; check path and permissions") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: truncated or not a data pack ({error}); fetch or make it again") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as file:
        shape, dtype = _read_header(file)
        if dtype.hasobject:
            raise ValueError(f"array {member.filename!r} holds pickled objects, which are never loaded")
        size = prod(shape) * dtype.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"array {member.filename!r} claims {size} bytes, has {member.file_size - file.tell()}")
    with archive.open(member) as file:
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # reaching the end is what makes zipfile compare the checksum
        return array


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = _HEADERS.get(version)
    if read is None:
        raise ValueError(f"array format {version} is not known here")
    shape, _, dtype = read(file)
    return shape, dtype
