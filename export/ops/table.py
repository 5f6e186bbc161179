"""The table of operations in docs/program.md, written from the rules: `python -m edge_adapt.export.ops.table FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from . import RULES

START, END = "<!-- operations: generated from the rules -->", "<!-- end of operations -->"
HEAD = "| operation | inputs -> outputs | attributes | meaning |\n|---|---|---|---|\n"


def table() -> str:
    """The table in Markdown, one row per rule, in the order of the registry."""
    rows = (
        f"| {rule.kind} | {rule.signature} | {rule.attributes} | {rule.meaning} |" for rule in RULES.values()
    )
    return HEAD + "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """A document with what lies between the two markers replaced; raises ValueError where they are missing."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"expected the markers {START!r} and {END!r}")
    return f"{before}{START}\n{table()}{END}{after}"


def main() -> None:
    """Rewrite the table in the file that is named."""
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
