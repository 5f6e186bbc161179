"""Recipes: named configurations in TOML. `extends = "NAME"` takes another recipe's values as defaults."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import read_text
from ..settings.tables import flatten, merge, read_toml

EXTENDS = "extends"


def recipe_names() -> list[str]:
    """The recipes that come with the package, sorted."""
    files = resources.files(__package__).iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """The table of a recipe by name, or of the user's own `.toml` file, its bases merged in.

    Raises:
        ConfigError: no such recipe or file, not TOML, or recipes that extend each other in a circle.
    """
    return _read(name_or_path, ())


def stated_in(name_or_path: str) -> list[str]:
    """Dotted names of the settings in a recipe itself, without those of the recipes that it extends."""
    return list(flatten(read_toml(_text(name_or_path), f"recipe {name_or_path}")))


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise ConfigError(f"recipe {seen[0]}: extends itself through {' -> '.join([*seen, name])}")
    table = read_toml(_text(name), f"recipe {name}")
    base = table.pop(EXTENDS, None)
    if base is not None:
        table = merge(_read(str(base), (*seen, name)), table)
    return {**table, "recipe": Path(name).stem if name.endswith(".toml") else name}


def _text(name: str) -> str:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            found = "is no file" if path.exists() else "does not exist"
            raise ConfigError(f"recipe file {name} {found}")
        return read_text(path)
    if name not in recipe_names():
        raise ConfigError(
            f"no recipe is called {name!r}; there are {', '.join(recipe_names())}, or a .toml file"
        )
    return resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
