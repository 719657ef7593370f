"""A blob that never comes must not hold up the ones behind it: a round call is not signed, and names what it likes."""

from __future__ import annotations

from pathlib import Path

from edge_client.effects import Fetched
from edge_protocol.blobs import cut
from tests.edge_client.test_fetcher import CHUNK, DATA, Rig


def test_a_blob_that_never_comes_lets_the_next_go_first(tmp_path: Path) -> None:
    """The blob behind it arrives; the stalled one keeps what it has, and completes when it is published after all."""
    rig = Rig(tmp_path / "blobs")
    late = DATA[::-1]
    stalled, _ = cut(late, CHUNK)
    rig.publish(late, without=frozenset(range(5, stalled.chunks)))
    behind = rig.publish(DATA)
    rig.fetch(stalled)
    rig.fetch(behind)
    rig.finish()
    assert rig.all(Fetched) == [Fetched(behind.sha256)]
    rig.said.clear()
    rig.publish(late)
    rig.finish()
    assert rig.all(Fetched) == [Fetched(stalled.sha256)]
    assert rig.fetcher.path(stalled.sha256).read_bytes() == late
    rig.fetcher.close()
