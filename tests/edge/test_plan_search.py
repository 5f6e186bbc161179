"""The budget search: what it prefers, what it gives up last, and that more memory never makes a plan worse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from edge_adapt.edge.errors import BudgetError
from edge_adapt.edge.lower.choice import SCHEDULES, TILINGS
from edge_adapt.edge.plan import Plan, search_plan
from edge_adapt.edge.plan.candidate import Budgets
from edge_adapt.edge.plan.freezing import BY_BENEFIT, FRONT_FIRST, Worth
from edge_adapt.edge.plan.search import Search, planning_request
from edge_adapt.edge.plan.space import DOMAINS, Fixed, micro_batches, space_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..timing import least_seconds
from .programs import Net, conv_program, residual_program

SAMPLES, STEPS = 6, 3
NET = Net(rho=0.3, steps=STEPS)
LAYERS = ("conv1", "norm1", "conv2", "norm2", "fc")
WORTH = tuple(Worth((benefit,) * STEPS, 1000) for benefit in (4.0, 1.0, 3.0, 2.5, 5.0))
WHICH = ("memory_budget", "dynamic_budget")
Rank = tuple[float, float, bool, bool, float]


def alpha(*frozen: int) -> NDArray[np.float32]:
    """Step sizes of three steps that differ, without some layers."""
    found = np.full((STEPS, len(LAYERS)), 0.1, np.float32)
    found[1, :2] = found[2, 2] = 0
    found[:, list(frozen)] = 0
    return found


@cache
def searching(frozen: tuple[int, ...] = (), known: bool = True, residual: bool = False) -> Search:
    """Return a search whose work is shared by all tests."""
    program = residual_program() if residual else conv_program(NET)
    sizes = np.full((5, 3), 0.1) if residual else alpha(*frozen)
    worth = WORTH if known and not residual else None
    space = space_of(SAMPLES, Fixed())
    ends = {**space.values, "tiling": (TILINGS[0], TILINGS[-1])}  # fewer plans: these tests take seconds, too
    return Search(planning_request(program, sizes, SAMPLES, STEPS, worth=worth), replace(space, values=ends))


def within(search: Search, which: str, budget: int | None) -> Plan:
    """Plan with one budget."""
    return search.plan(Budgets(budget, None) if which == "memory_budget" else Budgets(None, budget))


def smallest(search: Search, which: str) -> int:
    """Return the smallest budget that a refusal names."""
    with pytest.raises(BudgetError, match=r"the smallest feasible is \d+ bytes") as refused:
        within(search, which, 1)
    found = refused.value.smallest_bytes
    assert found is not None
    assert f"is {found} bytes" in str(refused.value)
    return found


def figure(plan: Plan, which: str) -> int:
    return plan.planned_peak_bytes if which == "memory_budget" else plan.dynamic_bytes


def rank(plan: Plan) -> Rank:
    """What the search minimises; frozen layers stand for the benefit they lose."""
    frozen = sum(len(names) for names in plan.freezing.layers)
    choice = plan.choice
    bits = choice.saved_bits == 8, choice.cache_bits == 16
    return frozen, plan.cap_cut, *bits, plan.predicted_seconds


SEARCHES = st.sampled_from([((), True, False), ((0, 1), True, False), ((), False, False), ((), True, True)])


@settings(deadline=None, max_examples=15)
@given(SEARCHES, st.sampled_from(WHICH), st.floats(0, 1.1), st.floats(0, 1.1))
def test_a_larger_budget_never_gives_a_worse_plan(
    which_search: tuple[tuple[int, ...], bool, bool], which: str, one: float, other: float
) -> None:
    search = searching(*which_search)
    least, most = smallest(search, which), figure(search.plan(Budgets()), which)
    small, large = (int(least + share * (most - least)) for share in sorted((one, other)))
    tight, roomy = (within(search, which, budget) for budget in (small, large))
    assert figure(tight, which) <= small
    assert figure(roomy, which) <= large
    assert rank(roomy) <= rank(tight)


@pytest.mark.parametrize("which", WHICH)
def test_plans_between_the_smallest_budget_and_none_differ_in_more_than_one_way(which: str) -> None:
    search = searching()
    least, most = smallest(search, which), figure(search.plan(Budgets()), which)
    plans = [within(search, which, int(budget)) for budget in np.linspace(least, most, 6)]
    assert len({plan.micro_batch for plan in plans}) > 1
    assert len({plan.freezing.layers for plan in plans}) > 1
    assert rank(plans[-1]) == rank(search.plan(Budgets()))


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("which_search", [(), ((0, 1),), ((), False), ((), True, True)])
def test_the_refusal_names_the_smallest_budget_that_works(
    which: str, which_search: tuple[tuple[int, ...], bool, bool]
) -> None:
    search = searching(*which_search)
    least = smallest(search, which)
    assert figure(within(search, which, least), which) <= least
    with pytest.raises(BudgetError, match=f"is {least} bytes"):
        within(search, which, least - 1)


def test_a_search_that_was_used_before_gives_the_same_plans() -> None:
    used, budget = searching(), smallest(searching(), "memory_budget") * 2
    fresh = searching.__wrapped__()
    assert within(used, "memory_budget", budget).to_json() == within(fresh, "memory_budget", budget).to_json()


def test_both_budgets_hold_and_the_refusal_names_the_one_that_cannot() -> None:
    search = searching()
    roomy = search.plan(Budgets())
    with pytest.raises(BudgetError, match="dynamic budget of 10 bytes"):
        search.plan(Budgets(roomy.planned_peak_bytes, 10))
    with pytest.raises(BudgetError, match="memory budget of 10 bytes"):
        search.plan(Budgets(10, roomy.dynamic_bytes))
    with pytest.raises(BudgetError) as refused:
        search.plan(Budgets(10, roomy.dynamic_bytes // 3))
    least = refused.value.smallest_bytes
    assert least is not None
    both = search.plan(Budgets(least, roomy.dynamic_bytes // 3))
    assert both.planned_peak_bytes <= least
    assert both.dynamic_bytes <= roomy.dynamic_bytes // 3


def test_without_a_budget_the_plan_is_the_fastest_and_nothing_is_lost() -> None:
    search = searching()
    plan = search.plan(Budgets())
    request = planning_request(conv_program(NET), alpha(), SAMPLES, STEPS)
    every = [
        Search(request, space_of(SAMPLES, Fixed(size, schedule, saved_bits=32, cache_bits=32))).plan(
            Budgets()
        )
        for size in micro_batches(SAMPLES)
        for schedule in SCHEDULES
    ]
    assert plan.predicted_seconds <= min(other.predicted_seconds for other in every)
    assert rank(plan)[:-1] == (0, 0.0, False, False)


def test_layers_are_frozen_by_benefit_per_byte_and_only_when_nothing_else_fits() -> None:
    search = searching((1,))
    never = search.plan(Budgets()).layers
    unfrozen = [one for one in plans(search) if not any(one.freezing.layers)]
    frozen = [one for one in plans(search) if any(one.freezing.layers)]
    assert unfrozen[0].layers == never == unfrozen[-1].layers
    order = ["conv2", "norm2", "conv1"]  # 3 in two steps, 2.5 in three, 4 in two
    for plan in frozen:
        names = {name for step in plan.freezing.layers for name in step}
        assert names in [set(order[:count]) for count in (1, 2, 3)]
        assert plan.freezing.benefit_lost == pytest.approx({1: 6, 2: 13.5, 3: 21.5}[len(names)] / 36.5)
        assert plan.freezing.reason == BY_BENEFIT
        assert all("fc" in step for step in plan.layers)


def plans(search: Search) -> list[Plan]:
    """Return plans from no budget to the smallest one."""
    most, least = search.plan(Budgets()), smallest(search, "memory_budget")
    budgets = np.linspace(most.planned_peak_bytes, least, 8).astype(int).tolist()
    return [most, *(search.plan(Budgets(budget)) for budget in budgets)]


def test_without_benefits_front_layers_are_frozen_first_and_the_plan_says_so() -> None:
    search = searching((), known=False)
    plan = within(search, "memory_budget", smallest(search, "memory_budget"))
    frozen = {name for step in plan.freezing.layers for name in step}
    assert frozen == set(LAYERS[: len(frozen)]) != set()
    assert (plan.freezing.benefit_lost, plan.freezing.reason) == (None, FRONT_FIRST)


def test_fewer_channels_are_kept_only_when_nothing_else_fits() -> None:
    program = conv_program(Net(colours=16, blocks=1, rho=0.3))

    def plan(budget: int | None, fixed: Fixed) -> Plan:
        return search_plan(program, np.full((5, 3), 0.1), 10, 5, dynamic_budget=budget, fixed=fixed)

    lean = Fixed(schedule="accumulate", saved_bits=32, cache_bits=32)
    last = {name: DOMAINS[name][-1] for name in ("recompute", "tiling")}
    uncut = [plan(None, Fixed(1, "accumulate", one, 32, 32, **last)) for one in ("dense", "sparse")]
    enough = min(one.dynamic_bytes for one in uncut)
    assert plan(enough, lean).cap_cut == 0
    cut = plan(enough - 1, lean)
    assert cut.cap_cut == 0.25
    (attention,) = (s for s in cut.lowered.programs[0].steps if s.outputs == ("fw::conv1",))
    assert attention.attrs["cap"] == int(0.75 * (16 - 5))


@pytest.mark.parametrize("budget", [None, 1, 1_000_000])
def test_planning_four_convolutions_with_25_samples_takes_about_a_second(budget: int | None) -> None:
    program = conv_program(Net(28, 1, 32, 4, 5, 8, rho=0.3))

    def planned() -> None:
        try:
            search_plan(program, np.full((5, 9), 0.1), 25, 5, memory_budget=budget)
        except BudgetError:
            assert budget == 1

    assert least_seconds(planned) < 3


def test_only_micro_batches_that_save_a_pass_are_tried() -> None:
    assert micro_batches(25) == [1, 2, 3, 4, 5, 7, 9, 13, 25]
    assert micro_batches(1) == [1]
    for samples in range(1, 130):
        assert micro_batches(samples) == sorted({-(-samples // n) for n in range(1, samples + 1)})


def test_the_micro_batches_of_a_hundred_million_samples_are_found_at_once() -> None:
    assert len(micro_batches(10**8)) < 20_001
    assert least_seconds(lambda: micro_batches(10**8)) < 1
