"""The options of a backbone: those its class or function takes after (sample_shape, outputs)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..settings.typed import convert

_CHECKED = (bool, int, float, str)


def checked_options(name: str, build: Callable[..., Any], options: Mapping[str, object]) -> dict[str, Any]:
    """Options by name, every value of the annotated type (a TOML list as the tuple that is wanted).

    Raises:
        ValueError: the backbone has no such option, or it takes another type of value.
    """
    parameters = list(inspect.signature(build).parameters.values())[2:]
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters)
    unknown = [option for option in options if option not in known]
    if unknown and not anything:
        raise ValueError(f"{name} has no option {unknown[0]!r}; it has {', '.join(known) or 'none'}")
    hints = _hints(build)
    return {
        option: convert(hints[option], value, f"architecture.{option}") if option in hints else value
        for option, value in options.items()
    }


def _hints(build: Callable[..., Any]) -> dict[str, Any]:
    """Annotations that say which TOML values fit; all others are left to the backbone."""
    try:
        found = get_type_hints(build.__init__ if inspect.isclass(build) else build)
    except (NameError, TypeError):
        return {}
    return {name: hint for name, hint in found.items() if _plain(hint)}


def _plain(hint: Any) -> bool:
    if isinstance(hint, UnionType) or get_origin(hint) is tuple:
        return all(_plain(part) for part in get_args(hint) if part not in (type(None), Ellipsis))
    return hint in _CHECKED
