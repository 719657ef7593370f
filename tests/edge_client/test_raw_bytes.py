"""Raw samples never leave: by the types that exist, by the tripwire, and by all bytes of a whole round."""

from __future__ import annotations

from pathlib import Path
from queue import Empty, Queue
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from devices.packs import ImagePack, open_pack
from edge_client.raw_bytes import DISTINCT, PIECE, raw_bytes_in
from edge_client.stored import read_stored
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.trunks import MAX_CHANGE_BYTES
from edge_protocol.vote_codec import decode_votes, encode_votes
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.small_centre import FLEET, artifact_files

IMAGE = np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)
SPEAKS = (*get_args(m.Up), m.Presence)
"""Every body that a device can send."""
ARRAYS = {
    "ClassVotes.classes",
    "ClassVotes.confidence",
    "ClassVotes.density",
    "ClassVotes.held",
    "ForecastVotes.mean",
    "ForecastVotes.spread",
    "PrototypeReport.classes",
    "PrototypeReport.means",
    "PrototypeReport.counts",
}


def leaves(kind: inspect.Type, at: str) -> dict[str, inspect.Type]:
    """Every field that holds no other structure: where it is → its type."""
    match kind:
        case inspect.StructType() if kind.cls.__name__ != "Array":
            inner = [leaves(field.type, f"{kind.cls.__name__}.{field.name}") for field in kind.fields]
            return {name: leaf for part in inner for name, leaf in part.items()}
        case inspect.UnionType():
            return {name: leaf for each in kind.types for name, leaf in leaves(each, at).items()}
        case inspect.VarTupleType():
            assert kind.max_length is not None, f"{at} is not bounded"
            return leaves(kind.item_type, at)
        case inspect.DictType():
            assert kind.max_length is not None, f"{at} is not bounded"
            return leaves(kind.key_type, at) | leaves(kind.value_type, f"{at} values")
        case _:
            return {at: kind}


def test_no_message_that_a_device_can_send_has_a_field_for_samples() -> None:
    """Beside bounded text and numbers: short ids and digests, arrays and streams of votes, the change of a trunk."""
    found = {name: leaf for kind in (m.Header, *SPEAKS) for name, leaf in leaves(inspect.type_info(kind), "").items()}
    arrays = {name for name, leaf in found.items() if isinstance(leaf, inspect.StructType)}
    assert arrays == ARRAYS
    blobs = {name: leaf.max_length for name, leaf in found.items() if isinstance(leaf, inspect.BytesType)}
    assert blobs == {
        "Header.message_id": 16,
        "Header.boot_id": 8,
        "CodedReport.proxy": 8,
        "CodedVotes.digest": 8,
        "CodedVotes.data": None,
        "TrunkChange.data": MAX_CHANGE_BYTES,
        "Measured.asked": 16,
    }
    texts = {name: leaf for name, leaf in found.items() if isinstance(leaf, inspect.StrType)}
    assert all(
        (leaf.max_length or 0) <= 512 if leaf.pattern is None else "{64}" in leaf.pattern for leaf in texts.values()
    )
    plain = (inspect.IntType, inspect.FloatType, inspect.BoolType, inspect.LiteralType, inspect.NoneType)
    rest = {name for name, leaf in found.items() if not isinstance(leaf, plain)} - arrays - set(blobs) - set(texts)
    assert not rest


def test_a_stream_of_coded_votes_cannot_hold_a_sample() -> None:
    """Whatever is not the coding of votes, to the last byte, is refused: an image in its place, or behind it."""
    ten = pack(np.zeros(10, np.uint8))
    coded = encode_votes(m.ClassVotes(ten, ten, ten, pack(np.ones(6, np.uint8))))
    assert len(coded.data) < 32
    for data in (IMAGE.tobytes(), coded.data + IMAGE.tobytes()):
        with pytest.raises(RemoteProtocolError):
            decode_votes(msgspec.structs.replace(coded, data=data), "classify")


@pytest.mark.parametrize("field", ["classes", "confidence", "density", "held"])
def test_votes_of_classes_refuse_samples_in_every_array(field: str) -> None:
    """An image, whole or flat, is no vote: of another shape, or beyond the levels that there are."""
    zero = pack(np.zeros(32 * 32 * 3, np.uint8))
    votes: dict[str, Any] = {"classes": zero, "confidence": zero, "density": zero, "held": pack(np.ones(6, np.uint8))}
    assert m.ClassVotes(**votes).samples == 3072
    for sample in (IMAGE, IMAGE.ravel()):
        with pytest.raises(LocalProtocolError):
            m.ClassVotes(**votes | {field: pack(sample)})


def test_pieces_of_samples_are_found_in_what_is_about_to_leave() -> None:
    """A whole sample is; a black one is not worth looking for; levels of votes are none."""
    inside = b"head" + IMAGE.tobytes() + b"tail"
    assert raw_bytes_in(inside, [IMAGE]) == 8 * PIECE
    assert raw_bytes_in(inside[: 4 + PIECE], [IMAGE]) == PIECE
    assert raw_bytes_in(inside, [np.zeros_like(IMAGE)]) == 0
    assert raw_bytes_in(bytes(range(8)) * 500, [IMAGE]) == 0
    window = np.random.default_rng(1).normal(0, 1, (12, 4)).astype(np.float32)
    assert raw_bytes_in(window.tobytes(), [window]) > 0
    assert raw_bytes_in(b"", [IMAGE[:0]]) == 0


def windows(data: bytes) -> set[bytes]:
    """Every half piece in some bytes that is worth looking for: with enough different bytes."""
    length = PIECE // 2
    found = (data[at : at + length] for at in range(len(data) - length + 1))
    return {piece for piece in found if len(set(piece)) >= DISTINCT}


def captured(inbox: Queue[object]) -> list[bytes]:
    """What came of a device's messages."""
    payloads: list[bytes] = []
    while True:
        try:
            event = inbox.get_nowait()
        except Empty:
            return payloads
        if isinstance(event, Received) and f"/{FLEET}/d/cam-1/" in event.topic and "/down/" not in event.topic:
            payloads.append(event.payload)


@pytest.mark.timeout(400)
def test_all_bytes_of_a_whole_round_hold_no_piece_of_a_sample(tmp_path: Path) -> None:
    """Release, frames, refit, round, report, results: no 16 telling bytes in a row of any image are on the link.

    And every byte that the link counts is one that the uplink counts by its kind.
    """
    broker = MemoryBroker()
    tapped: Queue[object] = Queue()
    tap = MemoryTransport(broker, tapped)
    tap.subscribe(["#"])
    tap.start()
    rig = DeviceRig(device_config(tmp_path, labels={"commissioning": f"{tmp_path}/images.npz"}), broker, trainer=())
    rig.centre.release(1, {"nano": artifact_files()})
    rig.centre.call(1, 1)
    rig.until(lambda: rig.centre.of(m.KnowledgeReport), "report", within_s=300)
    told = len(rig.centre.of(m.DeviceState))
    rig.until(lambda: len(rig.centre.of(m.DeviceState)) > told + 1, "a state after the report")
    counts = rig.centre.of(m.DeviceState)[-1].counts
    assert counts["raw_bytes"] == 0
    assert counts["bytes:knowledge"] > 0
    by_kind = sum(count for name, count in counts.items() if name.startswith("bytes:"))
    assert by_kind == counts["bytes_up"], "nothing is sent past the uplink"
    rig.close()
    payloads = captured(tapped)
    assert len(payloads) > 5
    assert sum(map(len, payloads)) > 2000
    shown = open_pack(tmp_path / "images.npz")
    assert isinstance(shown, ImagePack)
    kept = read_stored(tmp_path / "state" / "replay.db", load_task("vehicle")).samples.raw
    sent = set().union(*map(windows, payloads))
    for image in (*shown.images, *kept):
        assert not windows(np.ascontiguousarray(image).tobytes()) & sent
    leak = msgspec.msgpack.encode(["x", np.ascontiguousarray(kept[0]).tobytes()])
    assert windows(np.ascontiguousarray(kept[0]).tobytes()) & windows(leak), "a leak would have been seen"
