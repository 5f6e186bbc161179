"""benchmarks/pages.py: tables get between their markers, and a page that says something else is noticed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PARTS = (
    "Before.\n<!-- one: begin -->\n",
    "<!-- one: end -->\nBetween.\n<!-- two: begin -->\n",
    "<!-- two: end -->\nAfter.\n",
)
PAGE = PARTS[0] + "old\n" + PARTS[1] + PARTS[2]
NEW = PARTS[0] + "1\n" + PARTS[1] + "2\n" + PARTS[2]
TABLES = {"one": lambda: "1\n", "two": lambda: "2\n"}


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import pages

    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    return pages


def test_only_what_stands_between_the_markers_is_replaced(pages, tmp_path):
    pages.rewrite("page.md", {"one": "1\n", "two": "2\n"})
    assert (tmp_path / "page.md").read_text() == NEW
    pages.rewrite("page.md", {"one": "1\n"})
    assert (tmp_path / "page.md").read_text() == NEW


def test_check_fails_on_an_old_page_and_writes_nothing(pages, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["script.py", "--check"])
    with pytest.raises(SystemExit, match=r"page\.md is not what benchmarks/script\.py writes"):
        pages.rewrite_or_check("", {"page.md": TABLES})
    assert (tmp_path / "page.md").read_text() == PAGE
    monkeypatch.setattr(sys, "argv", ["script.py"])
    pages.rewrite_or_check("", {"page.md": TABLES})
    monkeypatch.setattr(sys, "argv", ["script.py", "--check"])
    pages.rewrite_or_check("", {"page.md": TABLES})
    assert (tmp_path / "page.md").read_text() == NEW


@pytest.mark.parametrize(
    "page",
    [
        PAGE.replace("<!-- one: begin -->\n", ""),
        PAGE.replace("<!-- one: end -->\n", ""),
        PAGE + PAGE,
        "<!-- one: end -->\n<!-- one: begin -->\n",
    ],
    ids=["no begin", "no end", "twice", "end before begin"],
)
def test_a_page_whose_markers_are_broken_is_left_alone(pages, tmp_path, page):
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(
        ValueError, match=r"expected the lines <!-- one: begin --> and <!-- one: end --> once each"
    ):
        pages.rewrite("page.md", {"one": "1\n"})
    assert (tmp_path / "page.md").read_text() == page
