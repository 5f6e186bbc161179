"""One file per family of operations; together they are the registry of rules, one rule per operation."""

from __future__ import annotations

from . import (
    activation,
    affine,
    arithmetic,
    attention,
    average_pool,
    conv,
    cut,
    fc,
    gelu,
    layer_norm,
    loss,
    mahalanobis,
    matmul,
    mean,
    norm,
    policy,
    pool,
    prelu,
    resize,
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
    layer_norm,
    affine,
    sums,
    activation,
    smooth,
    gelu,
    prelu,
    softmax,
    arithmetic,
    mean,
    pool,
    average_pool,
    shape,
    cut,
    resize,
    matmul,
    mahalanobis,
    loss,
    policy,
    attention,
    update,
)

RULES: dict[str, Rule] = {rule.kind: rule for family in _FAMILIES for rule in family.RULES}

__all__ = ["RULES", "Extra", "Match", "Param", "Rule"]
