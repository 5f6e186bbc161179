"""Prefix and suffix: what no gradient step changes is computed once."""

from __future__ import annotations

from collections.abc import Sequence

from ..program import Program
from .outline import Outline


def split(program: Program, outlines: Sequence[Outline]) -> tuple[Outline, list[Outline]]:
    """Split the outlines of all gradient steps into one prefix and their suffixes."""
    raise NotImplementedError
