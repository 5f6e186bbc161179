"""Planning: sizes and lifetimes to offsets and a peak, and the search for the best plan within a budget."""

from .check import check_plan
from .offsets import plan_lifetimes
from .plan import Placed, Plan, arena_layout, make_plan, with_decode
from .search import search_plan

__all__ = [
    "Placed",
    "Plan",
    "arena_layout",
    "check_plan",
    "make_plan",
    "plan_lifetimes",
    "search_plan",
    "with_decode",
]
