"""Frozen dataclasses from nested tables and back: every key known, every value of the annotated type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from .tables import dotted

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
    hints = get_type_hints(kind)
    unknown = [key for key in table if key not in hints]
    if unknown:
        raise ConfigError(
            f"{dotted(where, unknown[0])} is no setting; known here: {', '.join(sorted(hints))}"
        )
    missing = [
        field.name for field in fields(_as_dataclass(kind)) if field.name not in table and _required(field)
    ]
    if missing:
        raise ConfigError(f"{where or 'configuration'}: missing {', '.join(missing)}")
    values = {key: convert(hints[key], value, dotted(where, key)) for key, value in table.items()}
    try:
        return kind(**values)
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
        elif isinstance(value, Mapping):
            table[field.name] = dict(value)
        else:
            table[field.name] = NONE if value is None else value
    return table


def convert(hint: Any, value: Any, name: str) -> Any:
    """Check a value against an annotation: dataclass, int, float, bool, str, tuple[...], or one or None.

    A mapping keeps its values as they are, but for those that are "none", which are left away.

    Raises:
        ConfigError: naming the setting, what was expected and what was given.
    """
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name}: expected a table of settings, got {value!r}")
        return build(hint, value, name)
    if isinstance(hint, UnionType):
        if value is None or value == NONE:
            return None
        return convert(next(kind for kind in get_args(hint) if kind is not NoneType), value, name)
    if get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name}: expected a table of settings, got {value!r}")
        return {key: item for key, item in value.items() if item != NONE}
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{name}: expected a list such as {_LISTS[get_args(hint)[0]]}, got {value!r}")
        return tuple(convert(get_args(hint)[0], item, name) for item in value)
    return _scalar(hint, value, name)


def _scalar(hint: type[Any], value: Any, name: str) -> Any:
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{name}: expected {_WORDS[hint]}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")
    return value


_WORDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

_LISTS: dict[type, str] = {bool: "[true]", int: "[2]", float: "[0.5]", str: '["fc"]'}


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _as_dataclass(value: Any) -> Any:
    return value
