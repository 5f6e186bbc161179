"""Tiling: the same adaptation slice by slice, nothing overlaps inside, and smaller where it is meant to be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.engines.base import Adaptation, Hooks
from edge_adapt.edge.lower import Choice, lower
from edge_adapt.edge.lower.choice import ACCUMULATE, CACHED_SUFFIX
from edge_adapt.edge.lower.table import SLICES, Slices, Step, StepProgram
from edge_adapt.edge.lower.target import REFERENCE, ReferenceTarget
from edge_adapt.edge.plan.check import check_plan
from edge_adapt.edge.plan.offsets import ALIGNMENT
from edge_adapt.edge.plan.plan import Plan, make_plan
from edge_adapt.edge.plan.static import static_bytes
from edge_adapt.edge.program import DTYPE_BITS, Program, Tensor
from edge_adapt.edge.reference import KERNELS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .programs import Net, conv_program, masks, random_support, random_weights, residual_program
from .separable import separable_program
from .suffixes import token_program

NET = Net(size=12, steps=2)
PROGRAMS = {
    "plain": conv_program(NET),
    "attention": conv_program(Net(size=12, steps=2, rho=0.3)),
    "residual": residual_program(NET),
    "separable": separable_program(NET),
    "tokens": token_program(),
}
UPDATED = {
    "plain": [(), ("conv2", "norm2", "fc"), ("fc",), ("norm1",), ("conv1",)],
    "attention": [(), ("conv2", "norm2", "fc"), ("norm1",)],
    "residual": [(), ("conv2",), ("fc",)],
    "separable": [(), ("depthwise",), ("expand", "fc"), ("fc",)],
    "tokens": [(), ("norm",)],
}
CASES = [(name, layers) for name, found in UPDATED.items() for layers in found]
TILINGS = ("norms", "convs", "lean")
SAMPLES = 4
CHOICES = [
    Choice(1),
    Choice(3),
    Choice(1, storage="sparse"),
    Choice(1, CACHED_SUFFIX),
    Choice(1, recompute=True, saved_bits=8),
    Choice(3, CACHED_SUFFIX, saved_bits=8, cache_bits=16, recompute=True),
]


def plan_of(program: Program, layers: tuple[str, ...], choice: Choice, samples: int = SAMPLES) -> Plan:
    rows = masks(program, *layers)
    lowered = lower(program, rows, samples, choice)
    names = [[layer.name for layer, on in zip(program.layers, row, strict=True) if on] for row in rows]
    return make_plan(lowered, names, static_bytes(program, lowered, None, 0), REFERENCE)


def adapted(program: Program, plan: Plan, net: Net = NET) -> Adaptation:
    support, weights = random_support(net, plan.samples), random_weights(program, step_size=0.02)
    return ReferenceEngine().adapt(program, plan, weights, support, hooks=Hooks(measure=True))


def tiled_steps(plan: Plan) -> list[tuple[StepProgram, Step, Slices]]:
    return [
        (one, step, step.slices)
        for one in plan.lowered.all_programs
        for step in one.steps
        if step.slices is not None
    ]


@pytest.mark.parametrize(("name", "layers"), CASES)
@pytest.mark.parametrize("choice", CHOICES)
def test_an_adaptation_in_slices_is_the_same_and_stays_within_its_plan(
    name: str, layers: tuple[str, ...], choice: Choice
) -> None:
    program = PROGRAMS[name]
    expected = adapted(program, plan_of(program, layers, choice))
    for tiling in TILINGS:
        plan = plan_of(program, layers, replace(choice, tiling=tiling))
        found = adapted(program, plan)
        assert found.measured_dynamic_bytes is not None
        assert found.measured_dynamic_bytes <= plan.dynamic_bytes
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-6)
        for param, value in expected.updated.items():
            np.testing.assert_allclose(found.updated[param], value, rtol=1e-6, atol=1e-7, err_msg=param)


@pytest.mark.parametrize(("name", "layers"), CASES)
@pytest.mark.parametrize("choice", CHOICES)
def test_every_operation_is_done_once_after_what_it_reads(
    name: str, layers: tuple[str, ...], choice: Choice
) -> None:
    program = PROGRAMS[name]
    whole = plan_of(program, layers, choice)
    for tiling in TILINGS:
        plan = plan_of(program, layers, replace(choice, tiling=tiling))
        for one, other in zip(plan.lowered.all_programs, whole.lowered.all_programs, strict=True):
            check_plan(
                [b.segments for b in one.buffers], offsets_of(plan, one), plan.dynamic_bytes, ALIGNMENT
            )
            done = [inner for step in one.steps for inner in (step.slices.steps if step.slices else (step,))]
            kinds = Counter(step.kind for step in done if step.kind != "Concat")
            assert kinds == Counter(step.kind for step in other.steps if step.kind != "Concat")
            check_order(done, {name for name, value in one.values.items() if not value.buffer})
            assert sum(step.macs for step in one.steps) == sum(step.macs for step in other.steps)


def offsets_of(plan: Plan, one: StepProgram) -> list[int]:
    offsets = plan.offsets[plan.lowered.all_programs.index(one)]
    return [offsets[buffer.name] for buffer in one.buffers]


def check_order(steps: list[Step], given_values: set[str]) -> None:
    """Values come before their readers; nothing reads a parameter after its update."""
    written, updated = set(given_values), set[str]()
    for step in steps:
        assert written.issuperset(filter(None, step.inputs)), step
        assert updated.isdisjoint(step.inputs), step
        written.update(step.outputs)
        if step.kind == "SgdUpdate":
            updated.add(step.inputs[0])


@dataclass(frozen=True)
class Piece:
    """Memory inside a Slices step: where it is, from and to which inner step it is in use."""

    name: str
    place: str
    start: int
    stop: int
    first: int
    last: int

    def meets(self, other: Piece) -> bool:
        apart = self.place != other.place or self.stop <= other.start or other.stop <= self.start
        return not apart and self.first <= other.last and other.first <= self.last


def sample_bytes(one: StepProgram, name: str) -> int:
    value = one.values[name]
    return Tensor(name, value.shape, value.dtype).size_bytes(1)


def pieces(program: StepProgram, step: Step, inner: Slices) -> list[Piece]:
    """Return the slices and tiles of one worker; results in the memory of inputs share their place."""
    shared = {step.outputs[target]: step.inputs[source] for target, source in inner.in_place.items()}
    found, end = [], len(inner.steps)
    mentions: dict[str, list[int]] = {}
    for index, one in enumerate(inner.steps):
        for name in filter(None, (*one.inputs, *one.outputs)):
            mentions.setdefault(name, []).append(index)
    for name, at in mentions.items():
        tile = inner.tiles.get(name)
        if tile is None:
            blocks = inner.blocks if name in inner.sliced else 1
            size, first = sample_bytes(program, name) // blocks, -1 if name in step.inputs else at[0]
            last = end if name in step.outputs else at[-1]
            found.append(Piece(name, shared.get(name, name), 0, size, first, last))
        else:
            size = int(np.prod(tile.shape)) * max(1, DTYPE_BITS[tile.dtype] // 8)
            place = shared.get(tile.over, tile.over)
            found.append(Piece(name, place, tile.offset, tile.offset + size, at[0], at[-1]))
            assert tile.over or tile.offset + size <= inner.tile_bytes
    return found


def handed_over(inner: Slices, before: Piece, after: Piece) -> bool:
    """Whether `after` starts where `before` ends, in a kernel that may work in place."""
    if before.last != after.first or before.start != after.start:
        return False
    one = inner.steps[after.first]
    return any(
        position < len(one.outputs)
        and one.outputs[position] == after.name
        and one.inputs[source] == before.name
        for position, source in KERNELS[one.kind].in_place.items()
    )


@pytest.mark.parametrize(("name", "layers"), CASES)
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("tiling", TILINGS)
def test_live_values_inside_a_step_lie_apart(
    name: str, layers: tuple[str, ...], choice: Choice, tiling: str
) -> None:
    program = PROGRAMS[name]
    plan = plan_of(program, layers, replace(choice, tiling=tiling))
    for one, step, inner in tiled_steps(plan):
        found = pieces(one, step, inner)
        for index, piece in enumerate(found):
            for other in found[:index]:
                if piece.meets(other):
                    assert handed_over(inner, piece, other) or handed_over(inner, other, piece), (
                        piece,
                        other,
                    )


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_blocks_divide_what_they_cut(name: str, layers: tuple[str, ...]) -> None:
    program = PROGRAMS[name]
    for choice in (Choice(1, tiling="convs"), Choice(3, CACHED_SUFFIX, tiling="convs")):
        for one, step, inner in tiled_steps(plan_of(program, layers, choice)):
            assert inner.sliced <= {*step.inputs, *step.outputs}
            for value in inner.sliced:
                shape = one.values[value].shape
                assert int(shape[shape[0] == "N"]) % inner.blocks == 0
                assert sample_bytes(one, value) % inner.blocks == 0
            assert inner.scratch_bytes >= max(each.workspace_bytes for each in inner.steps)
            assert step.workspace_bytes == inner.tile_bytes + inner.scratch_bytes


def test_something_is_cut_in_every_program() -> None:
    for name in ("plain", "attention", "residual", "separable"):
        program = PROGRAMS[name]
        for tiling in TILINGS:
            for choice in (Choice(1, tiling=tiling), Choice(1, CACHED_SUFFIX, tiling=tiling)):
                assert tiled_steps(plan_of(program, (), choice))


def test_several_threads_have_a_workspace_each_and_at_least_as_many_blocks() -> None:
    program = PROGRAMS["plain"]
    lowered = lower(
        program, masks(program), SAMPLES, Choice(1, tiling="convs"), target=ReferenceTarget(threads=4)
    )
    found = [step for step in lowered.programs[0].steps if step.kind == SLICES]
    assert found
    for step in found:
        assert step.slices is not None
        assert step.slices.blocks >= 4
        assert step.workspace_bytes == 4 * (step.slices.tile_bytes + step.slices.scratch_bytes)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(11, 23),
    st.sampled_from([(4, 1), (6, 3), (8, 4), (9, 3), (12, 2)]),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([ACCUMULATE, CACHED_SUFFIX]),
)
def test_odd_sizes_are_cut_where_packed_values_end_on_bytes(
    size: int, channels: tuple[int, int], micro_batch: int, schedule: str
) -> None:
    net = Net(size, 1, channels[0], 2, 3, channels[1], steps=1)
    program = conv_program(net)
    results = [
        adapted(program, plan_of(program, (), Choice(micro_batch, schedule, tiling=tiling), 5), net)
        for tiling in ("maps", *TILINGS)
    ]
    for other in results[1:]:
        for param, value in results[0].updated.items():
            np.testing.assert_allclose(other.updated[param], value, rtol=1e-6, atol=1e-7, err_msg=param)


LARGE = Net(84, 3, 32, 4, 5, 8)


def dynamic(program: Program, layers: tuple[str, ...], choice: Choice, samples: int = 25) -> int:
    return plan_of(program, layers, choice, samples).dynamic_bytes


def test_a_frozen_block_needs_no_map_at_full_size() -> None:
    program = conv_program(LARGE)
    map_bytes = program.tensors["y1"].size_bytes(1)
    layers = ("norm2", "norm3", "conv4", "norm4", "fc")
    assert dynamic(program, layers, Choice(1)) > map_bytes
    assert dynamic(program, layers, Choice(1, tiling="convs")) < 0.65 * map_bytes < 0.75e6


def test_all_layers_need_less_than_two_maps_at_full_size() -> None:
    program = conv_program(LARGE)
    map_bytes = program.tensors["y1"].size_bytes(1)
    assert dynamic(program, (), Choice(1)) > 2.5 * map_bytes
    assert dynamic(program, (), Choice(1, tiling="norms")) < 2.05 * map_bytes


def test_updates_in_slices_need_no_accumulators() -> None:
    net = Net(8, 3, 256, 2, 5, 8, steps=1)
    program = conv_program(net)
    weight_bytes = program.tensors["conv2.weight"].size_bytes(1)
    assert dynamic(program, (), Choice(1, CACHED_SUFFIX), 2) > weight_bytes
    assert dynamic(program, (), Choice(1, CACHED_SUFFIX, tiling="norms"), 2) < 0.5 * weight_bytes
