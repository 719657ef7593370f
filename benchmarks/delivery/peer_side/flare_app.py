"""NVIDIA FLARE's side: a Collab job whose server calls every client with the array. Run, it submits itself.

Arguments: the administrator's startup kit and how many clients there are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from nvflare.collab import CollabRecipe, collab
from nvflare.recipe import ProdEnv

from benchmarks.delivery.peer_side.turns import arrived, blob, turns


@collab.publish  # type: ignore[untyped-decorator]  # installed for the peers only
def take(array: NDArray[np.float32], sha256: str) -> None:
    """On a client: verify the array."""
    arrived(collab.site_name, array.data, sha256)


@collab.main  # type: ignore[untyped-decorator]  # installed for the peers only
def serve() -> None:
    """On the server: send to all clients at once, turn by turn."""
    for seed, begin in turns():
        data, sha256 = blob(seed)
        array = np.frombuffer(data, np.float32)
        begin()
        collab.clients(timeout=180).take(array, sha256)


if __name__ == "__main__":
    recipe = CollabRecipe("peers", min_clients=int(sys.argv[2]))
    recipe.execute(ProdEnv(sys.argv[1], username=Path(sys.argv[1]).name, login_timeout=60))
