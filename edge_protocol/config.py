"""Configuration: one YAML, flag > environment > file > default; pure, owns no file.

An unknown key is an error with a suggestion. Environment variables are `ROADCAST__SECTION__KEY`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import yaml

from edge_protocol.errors import ConfigError, RoadcastError

T = TypeVar("T")
ENV_PREFIX = "ROADCAST__"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where PyYAML was built with it: seven times as fast, and an agent reads three files before its first answer."""
_DEEPEST = 100
"""Sections within sections; a loader runs out of stack long after."""
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$(?P<where>.*)`)?")


def load_config(
    text: str,
    kind: type[T],
    *,
    where: str,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> T:
    """Read a configuration.

    Args:
        text: YAML.
        kind: the `msgspec.Struct` to fill; declare it with `forbid_unknown_fields=True`.
        where: file name, for messages.
        environment: variables to overlay; those that begin with `ROADCAST__`.
        flags: dotted key → value from the command line; None values are skipped.

    Raises:
        ConfigError: names file, key and what is expected.
    """
    tree = _yaml(text, where) if text.strip() else {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: must hold 'key: value' lines, not a {type(tree).__name__}")
    for name, text_value in (environment or {}).items():
        if name.startswith(ENV_PREFIX):
            path = name.removeprefix(ENV_PREFIX).lower().split("__")
            _overlay(tree, path, _yaml(text_value, f"${name}"), where=f"${name}")
    for name, value in (flags or {}).items():
        if value is not None:
            _overlay(tree, name.split("."), value, where=f"--{name}")
    try:
        return msgspec.convert(tree, kind)
    except RoadcastError as error:  # a structure's own check
        raise ConfigError(f"{where}: {error}") from error
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, RoadcastError):
            raise ConfigError(f"{where}: {error.__cause__}") from error
        raise ConfigError(f"{where}: {_explain(str(error), kind)}") from error


def schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a configuration, for editors."""
    return msgspec.json.schema(kind)


def _yaml(text: str, where: str) -> Any:  # noqa: ANN401  YAML holds anything
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise ConfigError(f"{where}: nested too deep")
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error


def _overlay(tree: dict[str, Any], path: list[str], value: object, *, where: str) -> None:
    for key in path[:-1]:
        inner = tree[key] = tree[key] if tree.get(key) is not None else {}
        if not isinstance(inner, dict):
            raise ConfigError(f"{where}: {key!r} is not a section")
        tree = inner
    tree[path[-1]] = value


def _explain(message: str, kind: type) -> str:
    found = _UNKNOWN.search(message)
    if found is None:
        return message
    known = sorted(_keys(kind))
    close = difflib.get_close_matches(found["key"], known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
    place = f" in {found['where'].strip('.')!r}" if found["where"] else ""
    return f"unknown key {found['key']!r}{place}{hint}"


def _keys(kind: type) -> set[str]:
    definitions = msgspec.json.schema(kind).get("$defs", {})
    return {name for entry in definitions.values() for name in entry.get("properties", {})}
