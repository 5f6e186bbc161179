"""`meta-train list`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping

import click

from ..amortized import LEARNERS
from ..models import BACKBONES
from ..outer import METHODS
from ..recipes import read_recipe, recipe_names
from ..tasks import describe_datasets


@click.command("list", epilog="Example: meta-train list")
def list_command() -> None:
    """Name methods, backbones, data sets and recipes."""
    _print("methods", {name: f"{method.summary} ({method.paper})" for name, method in METHODS.items()})
    _print(
        "methods without inner steps",
        {name: f"{learner.summary} ({learner.paper})" for name, learner in LEARNERS.items()},
    )
    _print("backbones", {name: backbone.line for name, backbone in BACKBONES.items()})
    _print("data sets", {name.lower(): line for name, line in describe_datasets().items()})
    _print("recipes", {name: str(read_recipe(name).get("summary", "")) for name in recipe_names()})


def _print(title: str, entries: Mapping[str, str]) -> None:
    click.echo(title)
    width = max(map(len, entries))
    for name, line in entries.items():
        click.echo(f"  {name:{width}}  {line}")
