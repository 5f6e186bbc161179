"""What every budget search does once it knows its candidates: place them, compare with the budgets, refuse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from ..errors import BudgetError
from ..units import format_bytes
from .candidate import Budgets, Size
from .plan import Plan


class Fittable(Protocol):
    """One way to run an adaptation."""

    @property
    def least(self) -> Size:
        """A lower bound on what its plan takes."""

    @property
    def seconds(self) -> float:
        """What it is predicted to take."""

    def plan(self) -> Plan:
        """Place every buffer."""


One = TypeVar("One", bound=Fittable)


class Fitting(ABC, Generic[One]):
    """Finds plans of one request; several budgets share what it has worked out.

    Attributes:
        advice: what a refusal tells to do, beside raising the budget.
    """

    advice = "plan fewer samples"

    def __init__(self) -> None:
        self._sizes: dict[One, Size] = {}
        self._last: tuple[One, Plan] | None = None

    @abstractmethod
    def best(self, budgets: Budgets) -> One | None:
        """Return the best candidate within the budgets; None if nothing fits."""

    @abstractmethod
    def decisive(self) -> Iterator[One]:
        """Yield the candidates of which one must fit for a plan to be found."""

    def plan(self, budgets: Budgets) -> Plan:
        """Return the best plan within the budgets.

        Raises:
            BudgetError: nothing fits; names the smallest budget that would.
        """
        found = self.best(budgets)
        if found is None:
            raise self._refusal(budgets)
        return self.plan_of(found)

    def smallest_peak(self) -> int:
        """Return the smallest planned peak of any plan."""
        return self._smallest(list(self.decisive()), lambda size: size.peak)

    def fits(self, one: One, budgets: Budgets) -> bool:
        """Whether a candidate is within both budgets; places nothing where the lower bounds tell already."""
        return not budgets.bounded or (budgets.allow(one.least) and budgets.allow(self._size(one)))

    def fastest(self, every: Sequence[One], budgets: Budgets) -> One | None:
        """Return the candidate that is predicted to be fastest of those that fit."""
        if not budgets.bounded:
            return min(every, key=lambda one: one.seconds)
        may_fit = [one for one in every if budgets.allow(one.least)]
        ranked = sorted(may_fit, key=lambda one: (one.seconds, one.least.peak))
        return next((one for one in ranked if self.fits(one, budgets)), None)

    def plan_of(self, one: One) -> Plan:
        """Return a candidate's plan; the last one is kept."""
        if self._last is None or self._last[0] is not one:
            self._last = (one, one.plan())
        return self._last[1]

    def _size(self, one: One) -> Size:
        """Return what a candidate's plan takes."""
        if one not in self._sizes:
            plan = self.plan_of(one)
            self._sizes[one] = Size(plan.planned_peak_bytes, plan.dynamic_bytes)
        return self._sizes[one]

    def _refusal(self, budgets: Budgets) -> BudgetError:
        """Return the error that names the smallest budget that would do."""
        every = list(self.decisive())
        in_arena = every
        if budgets.dynamic is not None:
            in_arena = [one for one in every if self.fits(one, Budgets(dynamic=budgets.dynamic))]
        if in_arena:
            what, budget = "memory", budgets.memory
            smallest = self._smallest(in_arena, lambda size: size.peak)
        else:
            what, budget = "dynamic", budgets.dynamic
            smallest = self._smallest(every, lambda size: size.dynamic)
        return BudgetError(
            f"no plan fits a {what} budget of {budget} bytes ({format_bytes(budget or 0)}): the smallest feasible"
            f" is {smallest} bytes ({format_bytes(smallest)}); raise the budget or {self.advice}",
            smallest,
        )

    def _smallest(self, candidates: Sequence[One], figure: Callable[[Size], int]) -> int:
        """Return the smallest figure of any plan; places only candidates whose lower bound is smaller still."""
        best: int | None = None
        for one in sorted(candidates, key=lambda one: figure(one.least)):
            least = figure(one.least)
            if best is not None and least >= best:
                break
            needed = max(least, figure(self._size(one)))
            best = needed if best is None else min(best, needed)
        assert best is not None
        return best
