"""Tables in pages of the docs, each between the lines `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Tables = Mapping[str, Callable[[], str]]
"""Name in a page's markers -> what makes the text between them, which ends with a newline."""


def rewrite_or_check(description: str, pages: Mapping[str, Tables]) -> None:
    """Command line of a script: write its tables into the pages, or with --check exit with an error if they differ.

    Args:
        description: what the script makes.
        pages: tables by page, a path below the repository's root.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true", help="do not write, fail if a page differs")
    check: bool = parser.parse_args().check
    for name, tables in pages.items():
        page = ROOT / name
        text = page.read_text()
        wanted = filled(text, {table: make() for table, make in tables.items()})
        if check and wanted != text:
            sys.exit(f"{name} is not what benchmarks/{parser.prog} writes; run it without --check")
        if not check:
            page.write_text(wanted)


def rewrite(page: str, tables: Mapping[str, str]) -> None:
    """Write tables, by name, into a page, a path below the repository's root."""
    path = ROOT / page
    path.write_text(filled(path.read_text(), tables))


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page's text with new tables between their markers.

    Raises:
        ValueError: a marker does not stand there exactly once, or a table's end comes before its begin.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"expected the lines {begin.strip()} and {end.strip()} once each, in this order")
        before, _, rest = text.partition(begin)
        text = before + begin + table + end + rest.partition(end)[2]
    return text
