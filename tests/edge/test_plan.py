"""The plan's figures and the budget search."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from edge_adapt.edge.errors import BudgetError, UsageError
from edge_adapt.edge.lower import Choice, lower
from edge_adapt.edge.lower.table import TERMS
from edge_adapt.edge.plan import Plan, check_plan, search_plan
from edge_adapt.edge.plan.offsets import ALIGNMENT
from edge_adapt.edge.plan.search import micro_batches, updated_layers
from numpy.typing import NDArray

from .programs import Net, conv_program, masks

STATIC_TERMS = ("weights", "program", "attention", "input")
FOUR_CONV = Net(size=28, channels=32, blocks=4, groups=8)
PLAIN, ATTENTION = conv_program(FOUR_CONV), conv_program(Net(28, 1, 32, 4, 5, 8, rho=0.3))
SMALL = conv_program(Net(rho=0.3))
LAYERS = tuple(layer.name for layer in PLAIN.layers)


def alpha_without(*frozen: str, steps: int = 5) -> NDArray[np.float32]:
    row = [0.0 if name in frozen else 0.1 for name in LAYERS]
    return np.array([row] * steps, np.float32)


def dynamic(*frozen: str, rho: bool = False) -> int:
    program = ATTENTION if rho else PLAIN
    return search_plan(program, alpha_without(*frozen), 25, 5, micro_batch=1).dynamic_bytes


def small(**options: int | str | None) -> Plan:
    return search_plan(SMALL, np.full((5, 5), 0.1), 10, 5, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("frozen", [(), ("conv1",), ("conv1", "norm1"), LAYERS[:-1], LAYERS])
@pytest.mark.parametrize("micro_batch", [1, 5, 25])
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_terms_sum_to_the_planned_peak(frozen: tuple[str, ...], micro_batch: int, storage: str) -> None:
    plan = search_plan(ATTENTION, alpha_without(*frozen), 25, 5, micro_batch=micro_batch, storage=storage)
    assert sum(plan.terms.values()) == plan.planned_peak_bytes
    assert plan.planned_peak_bytes == plan.static_bytes + plan.dynamic_bytes
    assert min(plan.terms.values()) >= 0
    assert set(plan.terms) == {*STATIC_TERMS, *TERMS, "gaps"}


@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_every_step_program_is_placed_without_overlap_inside_the_arena(storage: str) -> None:
    alpha = alpha_without()
    alpha[1, :4] = alpha[2, 4] = alpha[3, :8] = 0
    plan = search_plan(ATTENTION, alpha, 25, 5, micro_batch=5, storage=storage)
    assert len(plan.lowered.programs) == 4
    for program, offsets in zip(plan.lowered.programs, plan.offsets, strict=True):
        at = [offsets[buffer.name] for buffer in program.buffers]
        check_plan([buffer.segments for buffer in program.buffers], at, plan.dynamic_bytes, ALIGNMENT)


def test_placed_spans_are_those_of_the_step_programs() -> None:
    plan = small(micro_batch=5)
    placed = plan.placed()
    assert max(item.offset + item.bytes for item in placed) == plan.dynamic_bytes
    at_peak = [
        sum(p.bytes for p in placed if p.first <= t <= p.last)
        for t in range(len(plan.lowered.programs[0].steps))
    ]
    assert max(at_peak) == plan.dynamic_bytes - plan.terms["gaps"]


def test_freezing_the_first_block_and_one_more_convolution_needs_at_most_060_of_the_dense_plan() -> None:
    dense = dynamic()
    for convolution in ("conv2", "conv3", "conv4"):
        assert dynamic("conv1", "norm1", convolution) <= 0.60 * dense
        assert dynamic("conv1", "norm1", convolution, rho=True) <= 0.60 * dense
    assert dynamic("conv1", "norm1") <= 0.70 * dense
    assert 0.95 * dense <= dynamic("conv1") < dense


def test_the_dense_plan_is_what_counting_tensors_by_hand_gives() -> None:
    plan = search_plan(PLAIN, alpha_without(), 25, 5, micro_batch=1)
    maps, pooled, words = 32 * 28 * 28, 32 * 14 * 14, 4
    accumulators = sum(t.size_bytes(1) for t in PLAIN.with_role("param"))
    at_pool_gradient = accumulators + words * (28 * 28 + 2 * maps + pooled)  # images, x_hat1, two gradients
    assert at_pool_gradient < plan.dynamic_bytes < 1.07 * at_pool_gradient
    assert plan.terms["accumulators"] == accumulators


def test_static_memory_counts_weights_step_sizes_samples_and_attention_of_updated_layers() -> None:
    plan = search_plan(ATTENTION, alpha_without("conv1", "norm1"), 25, 5, micro_batch=5)
    weights = sum(t.size_bytes(1) for role in ("param", "step-size") for t in ATTENTION.with_role(role))
    assert plan.terms["weights"] == weights
    assert plan.terms["input"] == 25 * (28 * 28 + 8) + 5 * (8 + 4) + 5 * 4
    module = 4 * (2 * 32 * 32 + 2 * 32)
    assert plan.terms["attention"] == 6 * 2 * module  # conv2..4 and norm2..4, both directions
    floats = search_plan(ATTENTION, alpha_without(), 25, 5, sample_bytes=4 * 28 * 28)
    assert floats.terms["input"] > 25 * 4 * 28 * 28


def test_the_price_of_decoding_an_image_counts_where_it_exceeds_the_arena() -> None:
    plain = small(micro_batch=1)
    cheap = small(micro_batch=1, decode_bytes=plain.dynamic_bytes)
    dear = small(micro_batch=1, decode_bytes=plain.dynamic_bytes + 1000)
    assert cheap.planned_peak_bytes == plain.planned_peak_bytes
    assert dear.planned_peak_bytes == plain.planned_peak_bytes + 1000
    assert sum(dear.terms.values()) == dear.planned_peak_bytes
    assert (dear.terms["saved"], dear.terms["gaps"]) == (0, 0)


def test_json_has_the_promised_fields_and_nothing_numpy() -> None:
    plan = small(micro_batch=3)
    data = json.loads(json.dumps(plan.to_json()))
    assert data["layers"] == [["conv1", "norm1", "conv2", "norm2", "fc"]] * 5
    assert (data["samples"], data["micro_batch"], data["steps"], data["schedule"]) == (10, 3, 5, "accumulate")
    assert {"planned_peak_bytes", "static_bytes", "dynamic_bytes", "terms", "storage", "macs"} <= set(data)


def test_multiply_accumulates_are_those_of_all_samples_and_steps() -> None:
    one, many = (search_plan(PLAIN, alpha_without(), n, k, micro_batch=1) for n, k in ((1, 1), (25, 3)))
    assert many.macs == 75 * one.macs
    convolutions = 9 * 32 * 28 * 28
    inner = sum(9 * 32 * 32 * side * side for side in (14, 7, 3))
    head = 5 * 32
    norms = 32 * (28 * 28 + 14 * 14 + 7 * 7 + 3 * 3)
    assert (
        one.macs == 2 * convolutions + 3 * inner + 3 * head + 3 * norms
    )  # conv1's input gradient is skipped


def test_without_a_budget_the_plan_is_the_fastest() -> None:
    plan = small()
    assert plan.micro_batch == 10
    every = [small(micro_batch=m, storage=s) for m in micro_batches(10) for s in ("dense", "sparse")]
    assert plan.predicted_seconds == min(other.predicted_seconds for other in every)


@pytest.mark.parametrize("which", ["memory_budget", "dynamic_budget"])
def test_a_larger_budget_never_gives_a_slower_plan(which: str) -> None:
    figure = "planned_peak_bytes" if which == "memory_budget" else "dynamic_bytes"
    with pytest.raises(BudgetError) as refused:
        small(**{which: 1})
    assert refused.value.smallest_bytes is not None
    budgets = np.linspace(refused.value.smallest_bytes, 1.2 * getattr(small(), figure), 8).astype(int)
    ranks = []
    for budget in budgets.tolist():
        plan = small(**{which: budget})
        assert getattr(plan, figure) <= budget
        ranks.append((plan.cap_cut, plan.predicted_seconds))
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) > 2


@pytest.mark.parametrize("which", ["memory_budget", "dynamic_budget"])
@pytest.mark.parametrize("frozen", [(), ("conv1", "norm1")])
def test_the_refusal_names_the_smallest_budget_that_works(which: str, frozen: tuple[str, ...]) -> None:
    alpha = alpha_without(*frozen)
    with pytest.raises(BudgetError, match=r"the smallest feasible is \d+ bytes") as refused:
        search_plan(ATTENTION, alpha, 25, 5, **{which: 1000})  # type: ignore[arg-type]
    smallest = refused.value.smallest_bytes
    assert smallest is not None
    assert f"is {smallest} bytes" in str(refused.value)
    assert search_plan(ATTENTION, alpha, 25, 5, **{which: smallest}).micro_batch == 1  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match=f"is {smallest} bytes"):
        search_plan(ATTENTION, alpha, 25, 5, **{which: smallest - 1})  # type: ignore[arg-type]


def test_both_budgets_hold_and_the_refusal_names_the_one_that_cannot() -> None:
    roomy = small()
    with pytest.raises(BudgetError, match="dynamic budget of 10 bytes"):
        small(memory_budget=roomy.planned_peak_bytes, dynamic_budget=10)
    with pytest.raises(BudgetError, match="memory budget of 10 bytes"):
        small(memory_budget=10, dynamic_budget=roomy.dynamic_bytes)
    tight = small(memory_budget=roomy.planned_peak_bytes, dynamic_budget=roomy.dynamic_bytes // 3)
    assert tight.dynamic_bytes <= roomy.dynamic_bytes // 3


def test_fewer_channels_are_kept_only_when_nothing_else_fits() -> None:
    program = conv_program(Net(colours=16, blocks=1, rho=0.3))

    def plan(budget: int | None) -> Plan:
        return search_plan(program, np.full((5, 3), 0.1), 10, 5, dynamic_budget=budget)

    uncut = [
        search_plan(program, np.full((5, 3), 0.1), 10, 5, micro_batch=1, storage=s)
        for s in ("dense", "sparse")
    ]
    enough = min(one.dynamic_bytes for one in uncut)
    assert plan(enough).cap_cut == 0
    cut = plan(enough - 1)
    assert cut.cap_cut == 0.25
    (attention,) = (s for s in cut.lowered.programs[0].steps if s.outputs == ("fw::conv1",))
    assert attention.attrs["cap"] == int(0.75 * (16 - 5))


def test_planning_four_convolutions_with_25_samples_takes_less_than_a_second() -> None:
    started = time.process_time()
    search_plan(ATTENTION, alpha_without(), 25, 5, memory_budget=1_000_000)
    assert time.process_time() - started < 1


def test_only_micro_batches_that_save_a_pass_are_tried() -> None:
    assert micro_batches(25) == [1, 2, 3, 4, 5, 7, 9, 13, 25]
    assert micro_batches(1) == [1]


def test_steps_beyond_the_learned_ones_reuse_the_last_row() -> None:
    alpha = alpha_without("conv1", steps=2)
    alpha[1, 1] = 0
    mask = updated_layers(PLAIN, alpha, 4)
    assert mask[0] == masks(PLAIN, *LAYERS[1:])[0]
    assert mask[1:] == (masks(PLAIN, *LAYERS[2:])[0],) * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples: expected 1 or more, got 0"),
        ({"steps": 0}, "steps: expected 1 or more, got 0"),
        ({"micro_batch": -1}, "micro_batch: expected 1 or more, got -1"),
        ({"storage": "packed"}, "storage: expected one of dense, sparse, got 'packed'"),
        ({"alpha": np.zeros((5, 3))}, r"alpha: expected shape \(K, 9\), got \(5, 3\)"),
    ],
)
def test_arguments_without_meaning_are_refused(options: dict[str, object], message: str) -> None:
    given = {"alpha": alpha_without(), "samples": 5, "steps": 1, **options}
    with pytest.raises(UsageError, match=message):
        search_plan(PLAIN, **given)  # type: ignore[arg-type]


def test_a_single_micro_batch_keeps_accumulators_only_from_their_first_write_on() -> None:
    def terms(micro_batch: int) -> int:
        program = lower(PLAIN, masks(PLAIN), 4, Choice(micro_batch)).programs[0]
        first = min(b.first for b in program.buffers if b.name in program.accumulators)
        return first - program.body[0]

    assert terms(2) < 0 < terms(4)


def test_the_smallest_feasible_budget_does_not_depend_on_the_budget_asked_for() -> None:
    named = set()
    for budget in (1, 10_000, 50_000):
        with pytest.raises(BudgetError) as caught:
            small(memory_budget=budget)
        named.add(caught.value.smallest_bytes)
    (smallest,) = named
    assert small(memory_budget=smallest).planned_peak_bytes <= smallest
    with pytest.raises(BudgetError):
        small(memory_budget=smallest - 1)
