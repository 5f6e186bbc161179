"""Transformations of programs: one file per pass, all run as requires -> call -> ensures."""

from .contract import Pass, PassError, PassResult, apply
from .dead_code import EliminateDeadCode
from .frozen_attention import DropFrozenAttention
from .roles import AssignRoles
from .selections import RecordedSelections

__all__ = [
    "AssignRoles",
    "DropFrozenAttention",
    "EliminateDeadCode",
    "Pass",
    "PassError",
    "PassResult",
    "RecordedSelections",
    "apply",
]
