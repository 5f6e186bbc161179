"""The plan's figures and the budget search."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edge_adapt.edge.errors import UsageError
from edge_adapt.edge.lower import Choice, lower
from edge_adapt.edge.lower.table import TERMS
from edge_adapt.edge.plan import Plan, check_plan, search_plan
from edge_adapt.edge.plan.offsets import ALIGNMENT
from edge_adapt.edge.plan.search import updated_layers
from edge_adapt.edge.plan.space import Fixed
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
    plan = search_plan(
        program, alpha_without(*frozen), 25, 5, micro_batch=1, schedule="accumulate", storage="dense"
    )
    return plan.dynamic_bytes


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
    for program, offsets in zip(plan.lowered.all_programs, plan.offsets, strict=True):
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
    plan = search_plan(PLAIN, alpha_without(), 25, 5, micro_batch=1, schedule="accumulate")
    maps, pooled, words = 32 * 28 * 28, 32 * 14 * 14, 4
    accumulators = sum(t.size_bytes(1) for t in PLAIN.with_role("param"))
    at_pool_gradient = accumulators + words * (28 * 28 + 2 * maps + pooled)  # images, x_hat1, two gradients
    assert at_pool_gradient < plan.dynamic_bytes < 1.07 * at_pool_gradient
    assert plan.terms["accumulators"] == accumulators


def test_static_memory_counts_weights_step_sizes_samples_and_attention_of_updated_layers() -> None:
    plan = search_plan(
        ATTENTION, alpha_without("conv1", "norm1"), 25, 5, micro_batch=5, schedule="accumulate"
    )
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
    plan = small(micro_batch=3, schedule="accumulate")
    data = json.loads(json.dumps(plan.to_json()))
    assert data["layers"] == [["conv1", "norm1", "conv2", "norm2", "fc"]] * 5
    assert (data["samples"], data["micro_batch"], data["steps"], data["schedule"]) == (10, 3, 5, "accumulate")
    assert {"planned_peak_bytes", "static_bytes", "dynamic_bytes", "terms", "storage", "macs"} <= set(data)
    assert {"engine", "threads", "saved_bits", "cache_bits", "recompute", "tiling"} <= set(data)
    assert data["freezing"] == {"layers": [[]] * 5, "benefit_lost": 0.0, "reason": ""}


def test_multiply_accumulates_are_those_of_all_samples_and_steps() -> None:
    one, many = (
        search_plan(PLAIN, alpha_without(), n, k, micro_batch=1, schedule="accumulate")
        for n, k in ((1, 1), (25, 3))
    )
    assert many.macs == 75 * one.macs
    convolutions = 9 * 32 * 28 * 28
    inner = sum(9 * 32 * 32 * side * side for side in (14, 7, 3))
    head = 5 * 32
    norms = 32 * (28 * 28 + 14 * 14 + 7 * 7 + 3 * 3)
    assert (
        one.macs == 2 * convolutions + 3 * inner + 3 * head + 3 * norms
    )  # conv1's input gradient is skipped


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
        ({"schedule": "never"}, "schedule: expected one of accumulate, cached suffix, got 'never'"),
        (
            {"fixed": Fixed(schedule="accumulate", cache_bits=16)},
            "cache_bits: 16 needs the schedule 'cached suffix'",
        ),
        ({"fixed": Fixed(cache_bits=8)}, "cache_bits: expected one of 32, 16, got 8"),
        ({"fixed": Fixed(saved_bits=16)}, "saved_bits: expected one of 32, 8, got 16"),
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
