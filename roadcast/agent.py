"""What the service on a device starts: ``python -m roadcast.agent --config FILE``, the same as ``roadcast client run``.

It goes around the command line and what that loads, so that the first frame is answered sooner. Owns no thread.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_client.config import DeviceConfig
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError, StoreError
from edge_protocol.files import alone
from roadcast import exits

if TYPE_CHECKING:
    from edge_client.agent import Agent


def serve(config: Path, state_dir: Path | None = None, device: str | None = None, *, json: bool = False) -> None:
    """Serve until Ctrl-C or SIGTERM; say at the end what was counted.

    Raises:
        NotReadyError: another agent runs on this state folder.
        RoadcastError: what `Agent` raises, or `load_device`.
    """
    gc.disable()  # what is made until the agent starts lives as long as it does; then it turns this on again
    from edge_client.agent import Agent

    level = os.environ.get("ROADCAST_LOG", "WARNING").upper()
    if not isinstance(logging.getLevelName(level), int):
        raise ConfigError(f"$ROADCAST_LOG: no level {level!r}; one of DEBUG, INFO, WARNING, ERROR")
    logging.basicConfig(level=level, format="%(asctime)s %(name)s %(message)s")
    found = load_device(config, state_dir, device)
    with ExitStack() as kept:
        with suppress(StoreError):  # a disk that takes no folder, or no lock, is no reason not to serve
            kept.enter_context(alone(Path(found.state_dir), "agent"))
        agent = Agent(found)
        agent.run()
    _say_counts(agent, json=json)


def load_device(path: Path, state_dir: Path | None = None, device: str | None = None) -> DeviceConfig:
    """Read a device's configuration; flags beat the environment, which beats the file.

    Raises:
        ConfigError: the file cannot be read, or says something wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}; `roadcast client schema` shows what it must hold"
        ) from error
    flags = {"state_dir": None if state_dir is None else str(state_dir), "device": device}
    return load_config(text, DeviceConfig, where=str(path), environment=os.environ, flags=flags)


def parser() -> argparse.ArgumentParser:
    """The options of ``roadcast client run``."""
    made = argparse.ArgumentParser(prog="python -m roadcast.agent", description="Serve until Ctrl-C or SIGTERM.")
    made.add_argument("--config", "-c", type=Path, required=True, help="YAML of the device")
    made.add_argument("--state-dir", type=Path, help="where the device keeps everything, instead of the file's")
    made.add_argument("--device", help="name of the device, instead of the file's")
    made.add_argument("--json", action="store_true", help="print what was counted as JSON")
    return made


def _say_counts(agent: Agent, *, json: bool) -> None:
    from roadcast.output import emit

    counted = agent.inference.counters
    said = {
        "device": agent.config.device,
        "release": agent.core.running.release,
        "frames": counted.frames,
        "answered": counted.answered,
        "swap_skipped": counted.swap_skipped,
    }
    emit(said, json, lambda found: "  ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    sys.exit(exits.run(lambda: serve(**vars(parser().parse_args()))))
