"""A tripwire: do the bytes that are about to leave hold pieces of the samples just seen? Pure; owns no sample, no link.

No message type has a field for samples, so the answer is 0 unless somebody breaks that. What is found is withheld.
It knows samples as they are, not compressed, scaled or encrypted ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

PIECE = 32
"""Bytes of a piece of a sample that is looked for."""
DISTINCT = 12
"""Different bytes a piece must have: a black corner is in every message."""
PLACES = 8
"""Where a sample is looked at, spread evenly over it."""


def raw_bytes_in(payload: bytes, samples: Iterable[npt.NDArray[np.generic]]) -> int:
    """Count the bytes of pieces of samples that a payload holds.

    Args:
        payload: what is about to be sent.
        samples: raw samples, each as it is kept.

    Returns:
        Bytes found, at least 1 piece of every sample that the payload holds whole and that has one worth looking for.
    """
    return sum(PIECE for sample in samples for piece in _pieces(sample) if piece in payload)


def _pieces(sample: npt.NDArray[np.generic]) -> Iterator[bytes]:
    data = np.ascontiguousarray(sample).tobytes()
    places = np.linspace(0, max(len(data) - PIECE, 0), PLACES).astype(int)
    for at in dict.fromkeys(places.tolist()):
        piece = data[at : at + PIECE]
        if len(set(piece)) >= DISTINCT:
            yield piece
