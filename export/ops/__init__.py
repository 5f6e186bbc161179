"""One file per family of operations; together they are the registry of rules, one rule per operation."""

from __future__ import annotations

from . import (
    activation,
    attention,
    conv,
    fc,
    gelu,
    loss,
    norm,
    pool,
    prelu,
    shape,
    smooth,
    softmax,
    sums,
    update,
)
from .rule import Extra, Match, Param, Rule

_FAMILIES = (
    conv,
    fc,
    norm,
    sums,
    activation,
    smooth,
    gelu,
    prelu,
    softmax,
    pool,
    shape,
    loss,
    attention,
    update,
)

RULES: dict[str, Rule] = {rule.kind: rule for family in _FAMILIES for rule in family.RULES}

__all__ = ["RULES", "Extra", "Match", "Param", "Rule"]
