"""Results are sent by the agent's own code to a transport that takes them, or it is said why not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_client.outbox import Outbox
from edge_protocol.errors import StoreError, TransportError
from edge_protocol.messages import IntervalResult
from roadcast.bench.publishing import SEEN, Publishing

RESULT = IntervalResult("vehicle", "bench", 0.0, 60.0, 1.0, {"juggernaut": 1.0})


@pytest.fixture(name="place")
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture(name="sending")
def in_memory(place: Path) -> Iterator[Publishing]:
    """Sends to a transport in memory."""
    made = Publishing("memory", RESULT)
    yield made
    made.close()
    assert not list(place.iterdir()), "nothing stays on disk"


def test_a_message_is_written_down_and_takes_the_place_of_the_last(sending: Publishing, place: Path) -> None:
    """After many only the newest lies in the outbox, however long the run; closing leaves nothing."""
    for number in range(40):
        sending.send(IntervalResult("vehicle", "bench", 0.0, 60.0, 1.0, {"car": float(number)}))
    (file,) = place.glob("roadcast-bench-*/outbox.db")
    kept = Outbox(file)
    assert len(kept) == 1
    kept.close()
    assert str(place) in sending.says


def test_raw_samples_that_were_seen_are_looked_for(sending: Publishing) -> None:
    """As on a device; no more than a device remembers are kept."""
    for number in range(2 * SEEN):
        sending.seen.append(np.full((4, 4, 3), number, np.uint8))
    sending.send(RESULT)
    assert len(sending.seen) == SEEN


def test_a_link_that_is_down_is_an_error(place: Path) -> None:
    """Not a short time: a message that nobody took was not published."""
    made = Publishing("memory", RESULT, patience_s=0.05)
    made.transport.close()
    with pytest.raises(TransportError, match="no message was taken"):
        made.send(RESULT)
    made.close()
    assert not list(place.iterdir())


def test_a_disk_that_takes_no_outbox_is_an_error(place: Path) -> None:
    """The folder for temporary files is gone: said with what to do."""
    place.rmdir()
    with pytest.raises(StoreError, match=r"\$TMPDIR"):
        Publishing("memory", RESULT)
    place.mkdir()
