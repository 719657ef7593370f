"""An operator asks how fast a device answers: request, answer, and what a rollout's gate takes of it; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from broker_server.effects import Effect, SaveMeasured, SaveOrder
from broker_server.records import OrderRecord
from broker_server.registry import Device
from edge_protocol.effects import Send
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import Measure, Measured

MEASURE = "measure"
"""The order that asks a device."""
MOST_CONTENDED = 1.2
"""Wall over CPU time from which something else had the processor, and a latency is no judgement of the student."""


def ask(order: OrderRecord, devices: Mapping[DeviceId, Device]) -> list[Effect]:
    """Ask a device, or say why not."""
    device = None if order.device is None else devices.get(order.device)
    if device is None:
        return [_answered(order, f"there is no device {order.device!r} in this fleet")]
    if order.task not in device.tasks:
        return [_answered(order, f"{device.device} does not run {order.task!r}")]
    if not device.present:
        return [_answered(order, f"{device.device} is {device.status.value}; ask again when it is there")]
    return [_answered(order, ""), Send(Measure(order.task, order.seconds), to=device.device)]


def taken(
    device: Device, told: Measured, judge: Callable[[DeviceId, Measured, float], list[Effect]], now: float
) -> tuple[list[Effect], str]:
    """Take what a device measured: store it, and let a rollout judge it; with the reason why not."""
    if TaskId(told.task) not in device.tasks:
        return [], "wrong-task"
    return [*judge(device.device, told, now), SaveMeasured(device.device, now, told)], ""


def latency_of(told: Measured) -> dict[str, float]:
    """What a rollout's latency limit is held against; empty when it was not measured, or beside too much else."""
    p95, contended = told.values.get("p95_ms"), told.values.get("contended", 1.0)
    return {} if p95 is None or contended > MOST_CONTENDED else {"latency_p95_ms": p95}


def _answered(order: OrderRecord, answer: str) -> SaveOrder:
    return SaveOrder(replace(order, answer=answer))
