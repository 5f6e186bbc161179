"""`edge-adapt doctor`."""

from __future__ import annotations

import click

from .common import json_option, print_json, print_table


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print facts about this machine and what to do about each problem.

    \b
    Example:
      edge-adapt doctor
    """
    from ..doctor import facts, notes, problems

    found = facts()
    lines = problems(found)
    if as_json:
        print_json({**found, "problems": lines, "notes": notes(found)})
        return
    rows = {**found, **{f"package {name}": version for name, version in found["packages"].items()}}
    del rows["packages"]
    print_table([(key, str(value)) for key, value in rows.items()])
    for line in lines:
        click.echo(f"problem: {line}")
    for line in notes(found):
        click.echo(f"note: {line}")
    click.echo(f"\n{len(lines)} problem(s)" if lines else "\nno problems")
