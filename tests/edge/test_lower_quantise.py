"""Storage in few bits: what is kept as levels, how near the numbers stay, and that nothing else changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from edge_adapt.edge.engines import Hooks, NonFiniteError, ReferenceEngine
from edge_adapt.edge.lower import Choice
from edge_adapt.edge.lower.choice import ACCUMULATE
from edge_adapt.edge.lower.lowering import outline
from edge_adapt.edge.lower.quantise import PLANE, with_packed_maps
from edge_adapt.edge.lower.recompute import with_recomputation
from edge_adapt.edge.plan import Plan, check_plan
from edge_adapt.edge.program import Program
from numpy.typing import NDArray

from .branches import branch_program
from .programs import DictWeights, Net, conv_program, random_support, random_weights
from .suffixes import SAMPLES, SUFFIX, TOKENS, freeze, plan_of, token_program

STEPS, LARGEST, NEAR = 5, 2e-2, 5e-4
NETS = {"plain": Net(size=20), "attention": Net(size=20, rho=0.3), "colour": Net(size=20, colours=3)}
NETS |= {"branches": Net(size=16), "tokens": Net(size=TOKENS)}
PROGRAMS = {name: conv_program(net) for name, net in NETS.items()}
PROGRAMS |= {"branches": branch_program(), "tokens": token_program()}
ALL = [[layer.name for layer in PROGRAMS["plain"].layers]]
HOWS = [(ACCUMULATE, 1), (ACCUMULATE, 4), (SUFFIX, 3)]


def learning(program: Program, *rows: list[str]) -> DictWeights:
    weights = random_weights(program, step_size=0.02)
    return freeze(program, weights, *rows) if rows else weights


def logits_after(name: str, weights: DictWeights, choice: Choice) -> tuple[Plan, NDArray[np.float32]]:
    """Adapt, check what memory was touched, and return the plan and the logits of new samples."""
    program, net = PROGRAMS[name], NETS[name]
    plan, engine = plan_of(program, weights, choice, steps=STEPS), ReferenceEngine()
    support, query = random_support(net, SAMPLES), random_support(net, 6, seed=9)
    found = engine.adapt(program, plan, weights, support, hooks=Hooks(measure=True))
    assert found.measured_dynamic_bytes is not None
    assert found.measured_dynamic_bytes <= plan.dynamic_bytes
    for one, offsets in zip(plan.lowered.all_programs, plan.offsets, strict=True):
        places = [offsets[buffer.name] for buffer in one.buffers]
        check_plan([buffer.segments for buffer in one.buffers], places, plan.dynamic_bytes)
    adapted = DictWeights({**weights.tensors, **found.updated})
    return plan, engine.predict(program, adapted, query)


def relative(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    return float(np.abs(found - truth).max() / np.abs(truth).max())


def saved_share(small: Plan, large: Plan) -> float:
    return small.terms["saved"] / large.terms["saved"]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("schedule", "micro_batch"), HOWS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_logits_after_five_steps_stay_near(
    name: str, schedule: str, micro_batch: int, recompute: bool
) -> None:
    weights = learning(PROGRAMS[name])
    before = random_weights(PROGRAMS[name]).tensors
    large, truth = logits_after(name, weights, Choice(micro_batch, schedule))
    choice = Choice(micro_batch, schedule, saved_bits=8, recompute=recompute, tiling="convs")
    small, found = logits_after(name, weights, choice)
    query = random_support(NETS[name], 6, seed=9)
    start = ReferenceEngine().predict(PROGRAMS[name], DictWeights(before), query)
    assert relative(start, truth) > 5 * LARGEST  # the steps did something
    assert relative(found, truth) < LARGEST
    if name != "tokens":
        assert relative(found, truth) > 0
        assert saved_share(small, large) < 0.6


@pytest.mark.parametrize("name", ["plain", "attention", "branches"])
def test_caches_in_16_bits_take_half_and_logits_stay_near(name: str) -> None:
    layers = [layer.name for layer in PROGRAMS[name].layers]
    weights = learning(PROGRAMS[name], layers[2:])
    choices = [Choice(3, SUFFIX, cache_bits=bits, tiling="convs") for bits in (32, 16)]
    (large, truth), (small, found) = (logits_after(name, weights, choice) for choice in choices)
    assert 0 < relative(found, truth) < NEAR
    before, after = ({c.name: c.bytes for c in plan.lowered.caches} for plan in (large, small))
    for cached, size in before.items():
        plane = math.prod(PROGRAMS[name].tensors[cached].concrete(1)[2:])
        if plane < PLANE:
            assert after[cached] == size
            continue
        assert cached not in after
        assert after[f"{cached}@levels"] == size // 2
        assert after[f"{cached}@range"] == 2 * size // plane
    assert any(f"{cached}@levels" in after for cached in before)


@pytest.mark.parametrize("name", ["plain", "branches"])
def test_levels_in_all_three_places_at_once(name: str) -> None:
    layers = [layer.name for layer in PROGRAMS[name].layers]
    weights = learning(PROGRAMS[name], layers[2:])
    _, truth = logits_after(name, weights, Choice(3, SUFFIX))
    choice = Choice(3, SUFFIX, "sparse", saved_bits=8, cache_bits=16, recompute=True, tiling="convs")
    assert relative(logits_after(name, weights, choice)[1], truth) < LARGEST


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_large_map_of_floats_is_kept_and_the_forward_pass_reads_none_of_the_bytes(
    name: str, recompute: bool
) -> None:
    program = PROGRAMS[name]
    one = outline(program, (True,) * len(program.layers), "dense", {})
    one = with_packed_maps(with_recomputation(one) if recompute else one, 8)
    for kept in one.saved():
        tensor = one.tensors[kept]
        packed = kept.endswith(("@levels", "@range"))
        assert packed or math.prod(tensor.concrete(1)[2:]) < PLANE or tensor.dtype != "float32"
    forward, backward = one.parts()
    assert "Dequantise" not in {op.kind for op in forward}
    assert "Quantise" not in {op.kind for op in backward}


def test_the_loss_of_the_first_step_is_exact_with_bytes_kept_only_for_the_backward_pass() -> None:
    weights = learning(PROGRAMS["plain"], *ALL)
    support = random_support(NETS["plain"], SAMPLES)
    losses = []
    for bits in (32, 8):
        plan = plan_of(PROGRAMS["plain"], weights, Choice(4, saved_bits=bits))
        losses.append(ReferenceEngine().adapt(PROGRAMS["plain"], plan, weights, support).losses)
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_the_micro_batch_does_not_matter() -> None:
    """Ranges belong to samples: however many run together, the bytes are the same."""
    weights = learning(PROGRAMS["attention"])
    choices = [Choice(micro_batch, saved_bits=8, recompute=True) for micro_batch in (1, 4, SAMPLES)]
    first, *others = (logits_after("attention", weights, choice)[1] for choice in choices)
    for other in others:
        assert relative(other, first) < 1e-4


def test_a_value_that_is_not_finite_stops_the_adaptation() -> None:
    weights = learning(PROGRAMS["plain"], ["conv1", "fc"])
    weights.tensors["conv1.weight"][0, 0, 1, 1] = np.nan
    plan = plan_of(PROGRAMS["plain"], weights, Choice(2, saved_bits=8, recompute=True))
    with pytest.raises(NonFiniteError):
        ReferenceEngine().adapt(PROGRAMS["plain"], plan, weights, random_support(NETS["plain"], SAMPLES))
