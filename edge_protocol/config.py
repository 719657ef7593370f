"""Configuration: one YAML, flag > environment > file > default; pure, owns no file.

An unknown key is an error with a suggestion. Environment variables are `ROADCAST__SECTION__KEY`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import yaml

from edge_protocol.errors import ConfigError, RoadcastError

T = TypeVar("T")
ENV_PREFIX = "ROADCAST__"
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""In C where PyYAML was built with it: seven times as fast, and an agent reads three files before its first answer."""
_DEEPEST = 100
"""Sections within sections; a loader runs out of stack long after."""
_MOST = 1_000_000
"""Values, those of an alias counted wherever it stands."""
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `\$(?P<where>.*)`)?")


class _Loader(_Safe):  # type: ignore[misc]
    """Says of a value that cannot be read, such as a thirteenth month, in which line it is."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002  PyYAML's
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, ValueError) as error:
            raise yaml.MarkedYAMLError(problem=f"{error}; quote the value", problem_mark=node.start_mark) from error


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
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, where, {})
        return loader.construct_document(node)
    except (yaml.YAMLError, UnicodeError) as error:
        raise ConfigError(f"{where}: not YAML: {error}") from error


def _measure(node: yaml.Node, where: str, known: dict[yaml.Node, tuple[int, int] | None]) -> tuple[int, int]:
    """Depth and number of a section's values, aliases followed: both must have a bound, and no key be there twice.

    Args:
        node: the section, or a value.
        where: file name, for messages.
        known: what was found of sections before; None for those around this one.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 0, 1
    found = known.get(node, (0, 0))
    if found is not None and found[0]:
        return found
    line, known[node] = f"{where}: line {node.start_mark.line + 1}", None
    if found is None:
        raise ConfigError(f"{line}: a section holds itself")
    inner = list(node.value)
    if isinstance(node, yaml.MappingNode):
        _refuse_twice([key for key, _ in node.value if isinstance(key, yaml.ScalarNode)], where)
        inner = [one for pair in node.value for one in pair]
    measures = [_measure(one, where, known) for one in inner]
    depth = 1 + max((deep for deep, _ in measures), default=0)
    size = 1 + sum(count for _, count in measures)
    if depth > _DEEPEST or size > _MOST:
        raise ConfigError(f"{line}: nested too deep, or more than {_MOST} values")
    known[node] = depth, size
    return depth, size


def _refuse_twice(keys: Sequence[yaml.ScalarNode], where: str) -> None:
    seen: set[str] = set()
    for key in keys:
        if key.value in seen:
            raise ConfigError(f"{where}: line {key.start_mark.line + 1}: {key.value!r} is there twice")
        seen.add(key.value)


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
