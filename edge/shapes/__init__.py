"""Whether the operands of a program's operations fit each other: number, types, shapes, attributes.

The kernels of the engines, in C above all, trust the shapes they are given. A program that comes from a file is
checked here first, whole, before anything is planned.
"""

from __future__ import annotations

from .program import check_forward, check_operands, check_shapes
from .table import RULES

__all__ = ["RULES", "check_forward", "check_operands", "check_shapes"]
