"""Who may publish and read what on a broker: Mosquitto's ``acl_file``, made from the topics there are. Pure.

A device is whoever its certificate says (``%u``): a new device needs no line, and no device has more than its own exact
topics. Mosquitto grants any subscription and filters when it delivers; nothing of ours subscribes to ``$share``, where
that would let a thief take the server's messages away.
"""

from __future__ import annotations

from broker_server.ca.issuing import OPERATOR
from edge_protocol.ids import SERVER, DeviceId, FleetId, TaskId
from edge_protocol.topics import DOWN_KINDS, UP_KINDS, Topics

CONTROL = "$CONTROL/dynamic-security/v1"
"""Where the operator tells Mosquitto to end a session."""
_ANY = DeviceId("x")


def access_rules(fleet: str) -> str:
    """Write the rules of a fleet.

    Args:
        fleet: its name.
    """
    topics, task = Topics(FleetId(fleet)), TaskId("x")
    mine = [topics.up(_ANY, kind) for kind in UP_KINDS] + [topics.online(_ANY)]
    to_me = [topics.down(_ANY, kind) for kind in DOWN_KINDS] + [_wild(topics.release(task, _ANY))]
    to_all = [_wild(topics.release(task)), _wild(topics.metadata("timestamp")), _wild(topics.round(task))]
    to_all.append(_wild(topics.chunk("0" * 64, 0), levels=2))
    lines = ["# Written by Roadcast: mosquitto.conf(5), acl_file.", f"user {SERVER}"]
    lines += [f"topic read {filters}" for filters in topics.every_uplink]
    lines += [f"topic write {_named(each, '+')}" for each in to_me]
    lines += [f"topic write {each}" for each in to_all] + [f"topic read {to_all[-1]}"]
    lines += ["", f"user {OPERATOR}", f"topic write {CONTROL}", f"topic read {CONTROL}/response"]
    lines += ["", "# Every device, under the name of its certificate."]
    lines += [f"pattern write {_named(each, '%u')}" for each in mine]
    lines += [f"pattern read {_named(each, '%u')}" for each in to_me]
    lines += [f"pattern read {each}" for each in to_all]
    return "\n".join(lines) + "\n"


def _named(topic: str, name: str) -> str:
    """Put a pattern in the place of the device's name."""
    return topic.replace(f"/d/{_ANY}/", f"/d/{name}/")


def _wild(topic: str, levels: int = 1) -> str:
    """Put ``+`` in the place of the last levels."""
    return "/".join([*topic.split("/")[:-levels], *["+"] * levels])
