"""What an operator orders about one device: measure it, retire it, take it back, tag it; pure, owns no registry."""

from __future__ import annotations

from msgspec.structs import replace

from broker_server.audit import AuditEntry
from broker_server.effects import Effect, SaveAudit, SaveOrder, WithdrawRelease
from broker_server.measuring import MEASURE, ask
from broker_server.records import OrderRecord
from broker_server.registry import TABLE, Device, DeviceEvent, Registry
from edge_protocol.fsm import permits

RETIRE, REINSTATE, TAG = "retire", "reinstate", "tag"
_EVENTS = {RETIRE: DeviceEvent.RETIRE, REINSTATE: DeviceEvent.REINSTATE}
MOST_TAGS = 32


def obey(order: OrderRecord, registry: Registry, now: float) -> tuple[Device | None, list[Effect]]:
    """Do what is ordered, or say why not.

    Returns:
        The device when it has changed, and what follows beside that.
    """
    if order.order == MEASURE:
        return None, ask(order, registry.devices)
    device = None if order.device is None else registry.devices.get(order.device)
    refused = "" if device else f"there is no device {order.device!r} in this fleet"
    effects: list[Effect] = []
    if device is not None and order.order in _EVENTS:
        refused, effects = _move(device, _EVENTS[order.order], registry, now)
    elif device is not None and order.order == TAG:
        refused = _tag(device, order)
    elif device is not None:
        refused = f"{order.order!r} is no order"
    if refused or device is None:
        return None, [SaveOrder(replace(order, answer=refused))]
    detail = f"{device.device} {' '.join(order.tags)}".strip()
    noted = AuditEntry(at_s=now, who=order.by, what=order.order, detail=detail)
    return device, [*effects, SaveAudit(noted), SaveOrder(replace(order, answer=""))]


def _move(device: Device, event: DeviceEvent, registry: Registry, now: float) -> tuple[str, list[Effect]]:
    if not permits(TABLE, device.status, event):
        return f"{device.device} is {device.status.value}", []
    registry.fire(device, event, now)
    if event is not DeviceEvent.RETIRE:
        return "", []
    return "", [WithdrawRelease(task, (device.device,)) for task in device.tasks]


def _tag(device: Device, order: OrderRecord) -> str:
    """Give it ``+tag`` and take ``-tag`` away."""
    given = device.tags.union(tag[1:] for tag in order.tags if tag[0] == "+")
    kept = given.difference(tag[1:] for tag in order.tags if tag[0] == "-")
    if len(kept) > MOST_TAGS:
        return f"{device.device} would have {len(kept)} tags; {MOST_TAGS} at most"
    device.tags = frozenset(kept)
    return ""
