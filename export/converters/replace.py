"""A copy of a module with some of its parts exchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from textwrap import shorten

from torch import nn

from ..errors import ExportError


def evaluated_copy(module: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode; the module itself is not touched.

    Raises:
        ExportError: the module holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(module).eval()
    except Exception as error:
        raise ExportError(
            f"{type(module).__name__}: the module cannot be copied ({type(error).__name__}: "
            f"{shorten(str(error), 150)}); drop cached tensors and handles before exporting"
        ) from error


def replaced(
    module: nn.Module, substitute: Callable[[str, nn.Module], nn.Module | None]
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Exchange parts of a copy in evaluation mode.

    Args:
        module: it is not changed.
        substitute: (module path, part) -> its replacement, or None to keep the part. Parts inside a replaced part are
            not asked for; a part with several paths is asked for once and replaced by one object.

    Returns:
        The copy (the replacement itself where the whole module was replaced, path ""), and path -> replacement.
    """
    result = evaluated_copy(module)
    made: dict[nn.Module, nn.Module | None] = {}
    new: dict[str, nn.Module] = {}
    for path, part in list(result.named_modules(remove_duplicate=False)):
        if _inside(path, new):
            continue
        if part not in made:
            made[part] = substitute(path, part)
        replacement = made[part]
        if replacement is None:
            continue
        new[path] = replacement.eval()
        if path:
            result.set_submodule(path, replacement)
        else:
            result = replacement
    return result, new


def _inside(path: str, outer: dict[str, nn.Module]) -> bool:
    return any(not name or path.startswith(f"{name}.") for name in outer)
