"""Nested tables of settings: TOML text, dotted names, overrides."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def flatten(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Dotted names of all values in a nested table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        name = dotted(where, key)
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
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML, {error}") from None
    return table


def write_toml(table: Mapping[str, Any]) -> str:
    """TOML of a table of values and of sections of values, values first."""
    lines = [f"{key} = {literal(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    for name, section in table.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {literal(value)}" for key, value in section.items())]
    return "\n".join(lines) + "\n"


def literal(value: Any) -> str:
    """A value as TOML has it; None as the settings spell it."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # TOML escapes DEL, JSON does not
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(literal(item) for item in value)}]"
    return repr(value)


def dotted(where: str, key: str) -> str:
    """The name of a key in the table called `where` ("" at the top)."""
    return f"{where}.{key}" if where else key
