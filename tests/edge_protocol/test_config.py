"""Configurations: flag over environment over file over default, and errors that name file, key and cure."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_protocol.config import load_config, schema
from edge_protocol.errors import ConfigError
from edge_protocol.ids import check_id

LAUGHS = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(40))
"""Nine of nine of nine…: two thousand bytes that would be 9 ** 40 values."""
PIECES = [
    "fleet: ",
    "broker:",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "port: ",
    "0x",
    "1",
    "a",
    "? ",
]
PIECES += [
    "!!int ",
    "!!timestamp ",
    "!!bool ",
    "!!set ",
    "!!omap ",
    "!!float ",
    "!!binary ",
    "2026-99-01",
    "'",
    "~",
    "!x ",
]


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
        ("fleet: a\nfleet: b", {}, "x.yaml: line 2: 'fleet' is there twice"),
        ("broker: {port: 1, host: a, 'port': 2}", {}, "x.yaml: line 1: 'port' is there twice"),
        ("fleet: &a [*a]", {}, "x.yaml: line 1: a section holds itself"),
        ("broker: &a {host: x, port: {y: *a}}", {}, "x.yaml: line 1: a section holds itself"),
        (LAUGHS, {}, "x.yaml: line 7: nested too deep, or more than 1000000 values"),
        ("".join(f"a{i}: &a{i} [*a{i - 1}]\n" if i else "a0: &a0 []\n" for i in range(300)), {}, "nested too deep"),
        ("fleet: 2026-13-45", {}, "x.yaml: not YAML: month must be in 1..12; quote the value\n.*line 1, column 8"),
        ("fleet: !!int abc", {}, "quote the value\n.*line 1, column 8"),
        ("fleet: !!timestamp abc", {}, "quote the value\n.*line 1, column 8"),
        ("fleet: " + "1" * 5000, {}, "quote the value\n.*line 1, column 8"),
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


def test_a_section_may_be_said_once_and_meant_twice() -> None:
    """Aliases and merge keys, which a key of its own overrides."""
    text = "x: &b {host: a, port: 2}\nbroker: {<<: *b, port: 3}\ny: *b"
    found = load_config(text, dict[str, Any], where="x.yaml")
    assert found == {"x": {"host": "a", "port": 2}, "broker": {"host": "a", "port": 3}, "y": {"host": "a", "port": 2}}


@settings(max_examples=300)
@given(text=st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=60))
def test_nothing_but_an_explanation_escapes(text: str) -> None:
    """Whatever is in the file, it is read or refused."""
    with suppress(ConfigError):
        load(text)


def test_the_schema_names_every_key() -> None:
    """Editors get a JSON Schema with sections and bounds."""
    found = schema(Outer)["$defs"]
    assert set(found["Outer"]["properties"]) == {"fleet", "broker"}
    assert found["Inner"]["properties"]["port"]["minimum"] == 1
