"""What a device makes of being asked how fast it answers: an effect, or a drop; pure, owns no measuring."""

from __future__ import annotations

from edge_client.effects import Effect, MeasureLatency
from edge_protocol.effects import Drop
from edge_protocol.messages import Header, Measure
from edge_protocol.task import TaskSpec


def asked(header: Header, measure: Measure, spec: TaskSpec) -> list[Effect]:
    """Take the request, if it is for this device's task."""
    if measure.task == spec.name:
        return [MeasureLatency(header.message_id, measure.seconds)]
    return [Drop("wrong-task", f"asked to measure task {measure.task!r}, this device has {spec.name!r}")]
