"""The device: plan an adaptation within a memory budget, run it, predict.

    from edge_adapt.edge import Bundle
    bundle = Bundle.open("bundle/")
    plan = bundle.plan(memory_budget="8MB")
    model = bundle.adapt(images, labels, plan=plan)
    model.predict(images)

`Bundle`, `AdaptedModel` and `Plan` are imported when first used: the command line must set the number of
threads before NumPy is loaded.
"""

from __future__ import annotations

from .starting import quit_on_interrupt

quit_on_interrupt()  # before anything large is imported

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from .errors import BudgetError, BundleError, EdgeAdaptError, SupportError, UsageError  # noqa: E402

if TYPE_CHECKING:
    from .plan import Plan
    from .session import AdaptedModel, Bundle

__all__ = [
    "AdaptedModel",
    "BudgetError",
    "Bundle",
    "BundleError",
    "EdgeAdaptError",
    "Plan",
    "SupportError",
    "UsageError",
]

_HOMES = {"AdaptedModel": ".session", "Bundle": ".session", "Plan": ".plan"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
