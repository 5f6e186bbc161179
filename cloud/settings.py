"""Frozen dataclasses from TOML tables and back: every key known, every value of the annotated type."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Section = TypeVar("Section")
NONE = "none"
"""How TOML, which has no null, writes the value None of an optional field."""


def build(kind: type[Section], table: Mapping[str, Any], where: str = "") -> Section:
    """Make a (nested) dataclass from a TOML table.

    Args:
        kind: the dataclass; its annotations are the types that are accepted, its own checks run.
        table: keys and values; sections are tables in it.
        where: dotted name of the table, for messages.

    Raises:
        ConfigError: naming the field that is unknown, missing, of another type, or out of range.
    """
    hints = _hints(kind)
    unknown = [key for key in table if key not in hints]
    if unknown:
        raise ConfigError(
            f"{_dotted(where, unknown[0])} is no setting; known here: {', '.join(sorted(hints))}"
        )
    values = {key: _convert(hints[key], value, _dotted(where, key)) for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError:
        missing = [f.name for f in fields(_as_dataclass(kind)) if f.name not in table]
        raise ConfigError(f"{where or 'configuration'}: missing {', '.join(missing)}") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where or 'configuration'}: {error}") from None


def to_table(section: object) -> dict[str, Any]:
    """The nested table that `build` turns into an equal dataclass; None becomes "none"."""
    table: dict[str, Any] = {}
    for field in fields(_as_dataclass(section)):
        value = getattr(section, field.name)
        if is_dataclass(value):
            table[field.name] = to_table(value)
        else:
            table[field.name] = NONE if value is None else value
    return table


def flatten(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted names of all values in a nested table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = _dotted(where, key)
        flat |= flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested table with the values of another put over it."""
    merged = dict(base)
    for key, value in changes.items():
        inner = base.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        merged[key] = merge(inner, value) if both and inner is not None else value
    return merged


def nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turn {"a.b": value} into {"a": {"b": value}}."""
    table: dict[str, Any] = {}
    for name, value in overrides.items():
        for key in reversed(name.split(".")):
            value = {key: value}
        table = merge(table, value)
    return table


def parse_override(text: str) -> tuple[str, Any]:
    """Split `a.b=value`; the value is read as TOML, or as text where it is no TOML value.

    Raises:
        ConfigError: there is no `=`, or nothing before it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set expects key=value, for example train.outer_steps=500, got {text!r}")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def read_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML; raises ConfigError with the place of the mistake."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML, {error}") from None


def write_toml(table: Mapping[str, Any]) -> str:
    """TOML of a table of values and of sections of values, values first."""
    lines = [f"{key} = {_literal(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for name, section in table.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_literal(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_literal(item) for item in value)}]"
    return repr(value)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check a value against an annotation: dataclass, int, float, bool, str, tuple[...], or one or None."""
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name}: expected a table of settings, got {value!r}")
        return build(hint, value, name)
    if isinstance(hint, UnionType):
        if value is None or value == NONE:
            return None
        return _convert(next(kind for kind in get_args(hint) if kind is not NoneType), value, name)
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}: expected a list such as [0.5], got {value!r}")
        return tuple(_convert(get_args(hint)[0], item, name) for item in value)
    return _scalar(hint, value, name)


def _scalar(hint: type, value: Any, name: str) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{name}: expected {_WORDS[hint]}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")
    return value


_WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _dotted(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _as_dataclass(value: Any) -> Any:
    return value
