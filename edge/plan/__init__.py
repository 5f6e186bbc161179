"""Planning: sizes and lifetimes to offsets and a peak, and the search for the best plan within a budget."""

from .plan import Placed, Plan
from .search import search_plan

__all__ = ["Placed", "Plan", "search_plan"]
