"""``python -m roadcast.state_diagrams``: writes docs/state-machines.md from the tables in the code. Owns no table."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from edge_protocol.fsm import to_mermaid

TABLES = {
    "A device's part in a round": ("edge_client.session", "SESSION"),
    "A release on a device": ("edge_client.deployment", "DEPLOYMENT"),
    "A training job on a device": ("edge_client.governor", "JOB"),
    "A round": ("broker_server.rounds", "TABLE"),
    "A rollout": ("broker_server.rollout_states", "TABLE"),
    "A device in a rollout": ("broker_server.rollout_fates", "FATES"),
    "A device, as the server sees it": ("broker_server.registry", "TABLE"),
}
"""Title → (module, name of the table in it)."""

_HEAD = """# State machines

Generated from the tables in the code by `python -m roadcast.state_diagrams`; a test fails when this file is stale.
A pair of state and event that is not drawn raises `IllegalTransitionError` and changes nothing.
"""


def document() -> str:
    """Draw every table as a Mermaid diagram under its title."""
    parts = [_HEAD]
    for title, (module, name) in TABLES.items():
        drawing = to_mermaid(getattr(import_module(module), name))
        parts.append(f"## {title}\n\n`{module.replace('.', '/')}.py`\n\n```mermaid\n{drawing}\n```\n")
    return "\n".join(parts)


def main(path: Path) -> None:
    """Write the document to `path`."""
    path.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/state-machines.md"))
