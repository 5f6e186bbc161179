"""TOML tables to frozen dataclasses and back: no silent typo, no silent type."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.settings.tables import flatten, merge, nest, parse_override, read_toml, write_toml
from edge_adapt.cloud.settings.typed import build, to_table
from hypothesis import given, settings
from hypothesis import strategies as st


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    name: str = "a"
    clamp: float | None = None
    scale: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Outer:
    steps: int
    quick: bool = False
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text().filter(
    lambda text: text != "none" and all(ord(c) < 0xD800 or ord(c) > 0xDFFF for c in text)
)
INNERS = st.builds(
    Inner, FLOATS, TEXTS, st.none() | FLOATS, st.none() | st.lists(FLOATS, max_size=3).map(tuple)
)


@settings(deadline=None)
@given(st.builds(Outer, st.integers(1, 2**31), st.booleans(), INNERS))
def test_what_is_written_as_toml_reads_back_equal(section: Outer) -> None:
    assert build(Outer, read_toml(write_toml(to_table(section)), "test")) == section


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"steps": 1, "stepz": 2}, r"stepz is no setting; known here: inner, quick, steps"),
        ({"steps": 1, "inner": {"rat": 2}}, r"inner\.rat is no setting"),
        ({"steps": "many"}, r"steps: expected a whole number, got 'many'"),
        ({"steps": True}, r"steps: expected a whole number, got True"),
        ({"steps": 2.0}, r"steps: expected a whole number, got 2\.0"),
        ({"steps": 1, "quick": 1}, r"quick: expected true or false, got 1"),
        ({"steps": 1, "inner": {"rate": "1"}}, r"inner\.rate: expected a number, got '1'"),
        ({"steps": 1, "inner": {"rate": float("nan")}}, r"inner\.rate: expected a finite number"),
        ({"steps": 1, "inner": {"rate": None}}, r"inner\.rate: expected a number, got None"),
        ({"steps": 1, "inner": {"name": 3}}, r"inner\.name: expected text, got 3"),
        ({"steps": 1, "inner": {"scale": 0.5}}, r"inner\.scale: expected a list"),
        ({"steps": 1, "inner": {"scale": ["x"]}}, r"inner\.scale: expected a number, got 'x'"),
        ({"steps": 1, "inner": 3}, r"inner: expected a table of settings, got 3"),
        ({"steps": 0}, r"steps must be at least 1, got 0"),
        ({}, r"missing steps"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, table)


def test_whole_numbers_serve_where_a_number_is_expected() -> None:
    assert build(Inner, {"rate": 2}) == Inner(rate=2.0)


def test_none_is_written_as_text_and_read_for_optional_settings() -> None:
    assert to_table(Inner())["clamp"] == "none"
    assert build(Inner, {"clamp": "none"}).clamp is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", ("a.b", 3)),
        ("a.b = 1e-3", ("a.b", 0.001)),
        ("a=true", ("a", True)),
        ("a=peak", ("a", "peak")),
        ("a=[0.5, 1]", ("a", [0.5, 1])),
        ('a="3"', ("a", "3")),
        ("a=x=y", ("a", "x=y")),
    ],
)
def test_overrides_are_read_as_toml_values_or_as_text(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["a", "", "=3"])
def test_an_override_without_a_key_or_a_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_override(text)


def test_overrides_nest_and_merge_without_losing_neighbours() -> None:
    assert nest({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}) == {"a": {"b": 1, "c": 4}, "d": 3}
    assert flatten({"a": {"b": 1, "c": 2}, "d": 3}) == {"a.b": 1, "a.c": 2, "d": 3}


def test_broken_toml_names_its_place() -> None:
    with pytest.raises(ConfigError, match=r"recipe x: not valid TOML, "):
        read_toml("steps = ", "recipe x")
