"""Configurations: flag over environment over file over default, and errors that name file, key and cure."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from edge_protocol.config import load_config, schema
from edge_protocol.errors import ConfigError
from edge_protocol.ids import check_id


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A section."""

    host: str = "localhost"
    port: Annotated[int, msgspec.Meta(ge=1)] = 1883


class Outer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A configuration with a section and a checked name."""

    fleet: str = "demo"
    broker: Inner = msgspec.field(default_factory=Inner)

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")


def load(text: str, **overlays: Any) -> Outer:
    """Read a configuration called x.yaml."""
    return load_config(text, Outer, where="x.yaml", **overlays)


def test_each_layer_overrides_the_one_below() -> None:
    """Default, file, environment, flag, in this order; an empty section and a None flag change nothing."""
    environment = {"ROADCAST__BROKER__PORT": "2", "ROADCAST__FLEET": "env", "HOME": "/"}
    assert load("") == Outer()
    assert load("broker: {port: 1}").broker.port == 1
    assert load("broker: {port: 1}", environment=environment).broker == Inner("localhost", 2)
    got = load("broker:", environment=environment, flags={"broker.port": 3, "fleet": None})
    assert (got.broker.port, got.fleet) == (3, "env")


@pytest.mark.parametrize(
    ("text", "overlays", "message"),
    [
        ("a: [", {}, "x.yaml: not YAML"),
        ("[" * 5000, {}, "x.yaml: nested too deep"),
        ("- a", {}, "x.yaml: must hold 'key: value' lines, not a list"),
        ("flet: a", {}, "x.yaml: unknown key 'flet'; did you mean 'fleet'"),
        ("broker: {prot: 1}", {}, "x.yaml: unknown key 'prot' in 'broker'; did you mean 'port'"),
        ("broker: {zzz: 1}", {}, "known keys: broker, fleet, host, port"),
        ("broker: {port: 0}", {}, r"x.yaml: Expected `int` >= 1 - at `\$.broker.port`"),
        ("fleet: a b", {}, "x.yaml: fleet 'a b' must be"),
        ("", {"environment": {"ROADCAST__FLEET": "["}}, r"\$ROADCAST__FLEET: not YAML"),
        ("broker: 1", {"flags": {"broker.port": 1}}, "--broker.port: 'broker' is not a section"),
    ],
)
def test_a_mistake_is_explained(text: str, overlays: dict[str, Any], message: str) -> None:
    """Syntax, unknown keys with a suggestion, bounds, a structure's own check, and where it came from."""
    with pytest.raises(ConfigError, match=message):
        load(text, **overlays)


def test_the_schema_names_every_key() -> None:
    """Editors get a JSON Schema with sections and bounds."""
    found = schema(Outer)["$defs"]
    assert set(found["Outer"]["properties"]) == {"fleet", "broker"}
    assert found["Inner"]["properties"]["port"]["minimum"] == 1
