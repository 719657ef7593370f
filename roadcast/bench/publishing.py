"""The last stage of a frame's way: a device's own result message, sent as a device sends it; owns no model.

`edge_client.uplink` does it: header, encoding, the tripwire for raw samples, a commit to an outbox on disk, the
hand-over to a transport. Nobody acknowledges, so each message takes the place of the one before it in the outbox. What
a broker does with it, and the network, are not in it, unless the transport's window is full: then it is waited for.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter, deque
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue

import numpy as np
import numpy.typing as npt

from broker_server.brokers.base import BrokerOptions
from broker_server.brokers.choose import choose_broker
from edge_client.outbox import Outbox
from edge_client.stamp import Stamp
from edge_client.uplink import Uplink
from edge_protocol.codec import encode
from edge_protocol.effects import Send
from edge_protocol.errors import StoreError, TransportError
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.messages import IntervalResult
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Connected, Inbox, Transport
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from roadcast.bench.job import PublishTo

SEEN = 16
"""Raw samples that a device's tripwire looks for."""
_FLEET, _DEVICE = FleetId("bench"), DeviceId("bench")
_PATIENCE_S = 10.0
_POLL_S = 0.0002


class Publishing:
    """Sends results; used by one thread only.

    Args:
        to: ``memory``: a transport in this process; ``broker``: MQTT to a broker of its own on loopback.
        like: a result of the size of those to come.
        patience_s: how long the link may take no message.

    Attributes:
        transport: the link.
        seen: the last raw samples, which whoever sees them appends.
        says: how messages are sent, for people.

    Raises:
        NotReadyError: no broker is installed here.
        StoreError: the folder for temporary files cannot be written.
        TransportError: the broker does not answer.
    """

    def __init__(self, to: PublishTo, like: IntervalResult, patience_s: float = _PATIENCE_S) -> None:
        self.seen: deque[npt.NDArray[np.generic]] = deque(maxlen=SEEN)
        self._drops: Counter[str] = Counter()
        self._patience_s = patience_s
        with ExitStack() as opening:
            folder = _temporary(opening)
            self.transport, name = _in_memory() if to == "memory" else _over_mqtt(folder, opening)
            opening.callback(self.transport.close)
            stamp = Stamp(_FLEET, _DEVICE)
            one = len(encode(stamp.header(), like))
            outbox = Outbox(folder / "outbox.db", budget_bytes=one * 3 // 2)
            opening.callback(outbox.close)
            self._uplink = Uplink(
                Topics(_FLEET), _DEVICE, stamp, outbox, self.transport, self._drops, lambda: list(self.seen)
            )
            self.says = f"written to an outbox below {folder.parent}, handed to {name}"
            self._held = opening.pop_all()

    def send(self, result: IntervalResult) -> None:
        """Send a result.

        Raises:
            StoreError: the disk refuses.
            TransportError: the link does not take it.
        """
        before = self._uplink.sent["result"]
        self._uplink.send(Send(result, durable=True), time.monotonic())
        if self._drops["outbox-failed"]:
            raise StoreError("the outbox cannot be written: free some space, or name another folder in $TMPDIR")
        if self._uplink.sent["result"] == before:
            self._insist(before)

    def close(self) -> None:
        """End the link, and the broker where there is one; nothing stays on disk."""
        self._held.close()

    def _insist(self, before: int) -> None:
        until = time.monotonic() + self._patience_s
        while self._uplink.sent["result"] == before:
            if time.monotonic() > until:
                raise TransportError(f"no message was taken for {self._patience_s:g} s; dropped: {dict(self._drops)}")
            time.sleep(_POLL_S)
            self._uplink.flush(time.monotonic())


def _temporary(opening: ExitStack) -> Path:
    try:
        return Path(opening.enter_context(tempfile.TemporaryDirectory(prefix="roadcast-bench-")))
    except OSError as error:
        raise StoreError(f"no folder for an outbox: {error}; free some space, or name another in $TMPDIR") from error


def _in_memory() -> tuple[Transport, str]:
    transport = MemoryTransport(MemoryBroker(), Queue())
    transport.start()
    return transport, "a transport in memory"


def _over_mqtt(folder: Path, opening: ExitStack) -> tuple[Transport, str]:
    from edge_protocol.transport.mqtt import MqttTransport

    broker = opening.enter_context(choose_broker(options=BrokerOptions(state_dir=folder / "broker")))
    inbox: Inbox = Queue(64)
    transport = MqttTransport(broker.settings, "roadcast-bench", inbox)
    transport.start()
    try:
        while not isinstance(inbox.get(timeout=_PATIENCE_S), Connected):
            pass
    except Empty:
        transport.close()
        raise TransportError(f"broker {broker.kind}: no connection within {_PATIENCE_S:g} s") from None
    return transport, f"{broker.kind} on loopback over MQTT"
