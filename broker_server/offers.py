"""What a release has to fit into before it is signed: the wire's bounds, and the broker's. Pure; sends nothing."""

from __future__ import annotations

from edge_protocol.codec import encode
from edge_protocol.errors import ArtifactError, LocalProtocolError
from edge_protocol.ids import SERVER, DeviceId, FleetId
from edge_protocol.manifest import ReleaseManifest
from edge_protocol.messages import Header, ReleaseOffer
from edge_protocol.topics import Topics
from edge_protocol.transport.in_flight import PACKET_OVERHEAD

_LONGEST = DeviceId("d" * 64)
_HEADER_NUMBER = 2**53


def check_offer(manifest: ReleaseManifest, data: bytes, packet_bytes: int) -> None:
    """Refuse a release whose manifest or chunks could never reach a device.

    Args:
        manifest: the release.
        data: the same, encoded.
        packet_bytes: of the largest packet that the broker takes.

    Raises:
        ArtifactError: says what is too large for which bound.
    """
    topics, task = Topics(FleetId(manifest.fleet)), manifest.task.task_id
    header = Header(manifest.fleet, SERVER, bytes(16), bytes(8), _HEADER_NUMBER, manifest.created_s, True)  # noqa: FBT003 - the wire's order
    try:
        offer = len(topics.release(task, _LONGEST)) + len(encode(header, ReleaseOffer(data)))
    except LocalProtocolError as error:
        raise ArtifactError(
            f"release of {task}: it cannot be offered: {error}; release less, or smaller files"
        ) from error
    chunk = max(len(topics.chunk(b.sha256, b.chunks - 1)) + min(b.size, b.chunk_bytes) for b in manifest.blobs)
    for what, size in (("manifest", offer), ("largest chunk", chunk)):
        if size + PACKET_OVERHEAD > packet_bytes:
            raise ArtifactError(
                f"release of {task}: its {what} would be a message of {size + PACKET_OVERHEAD} bytes, above the "
                f"{packet_bytes} of broker.max_packet_bytes; raise that and the broker's own limit, or release less"
            )
