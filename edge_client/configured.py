"""Whether what a configuration names is there and fits together, without starting anything; owns no file."""

from __future__ import annotations

from devices.sources import check_address
from edge_client.build import check_task, read_root
from edge_client.config import DeviceConfig
from edge_client.labels import open_commissioning
from edge_models.tasks import load_task
from edge_protocol.task import TaskSpec


def check_configuration(config: DeviceConfig) -> TaskSpec:
    """Read task, trusted root, addresses of sources and commissioning pack, and hold the rest against the task.

    Returns:
        The task.

    Raises:
        ConfigError: one of them is missing or says something wrong.
        DataError: the commissioning pack is none for the task.
    """
    spec = load_task(config.task)
    check_task(config, spec)
    read_root(config)
    for source in config.sources:
        check_address(source.uri)
    if config.labels.commissioning is not None:
        open_commissioning(config.labels.commissioning, spec)
    return spec
