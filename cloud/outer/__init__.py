"""How meta-parameters learn from many tasks: one file per method, found by name in METHODS."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from .base import Batch, Meta, MetaGradient, Method, MethodConfig


def methods_of_folder() -> Iterator[type[Method]]:
    """The classes of this folder's files that name their paper: a new method is one new file."""
    for file in iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        for found in vars(module).values():
            own = isinstance(found, type) and found.__module__ == module.__name__
            if own and "paper" in vars(found):
                yield found


METHODS: dict[str, type[Method]] = {method.name: method for method in methods_of_folder()}

__all__ = ["METHODS", "Batch", "Meta", "MetaGradient", "Method", "MethodConfig"]
