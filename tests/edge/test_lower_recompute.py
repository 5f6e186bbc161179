"""Recomputation: the same numbers to the bit, from less that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.engines import Adaptation, Hooks, ReferenceEngine
from edge_adapt.edge.lower import Choice, Lowered
from edge_adapt.edge.lower.choice import ACCUMULATE
from edge_adapt.edge.lower.clones import REACH, Clones
from edge_adapt.edge.lower.lowering import outline
from edge_adapt.edge.lower.outline import Outline
from edge_adapt.edge.lower.recompute import with_recomputation
from edge_adapt.edge.plan import Plan, check_plan
from edge_adapt.edge.program import Op, Program, Tensor

from . import branches
from .branches import branch_program
from .programs import DictWeights, Net, conv_program, random_support, random_weights, residual_program
from .suffixes import SAMPLES, SUFFIX, TOKENS, freeze, plan_of, token_program

NETS = {"plain": Net(size=20), "attention": Net(size=20, rho=0.3), "residual": Net()}
NETS |= {"branches": branches.NET, "tokens": Net(size=TOKENS)}
PROGRAMS = {
    "plain": conv_program(NETS["plain"]), "attention": conv_program(NETS["attention"]),
    "residual": residual_program(), "branches": branch_program(), "tokens": token_program(),
}  # fmt: skip
BLOCKS = ("conv1", "norm1", "conv2", "norm2", "fc")
ROWS: list[tuple[str, list[tuple[str, ...]]]] = [
    ("plain", [BLOCKS]),
    ("plain", [("conv2", "norm2", "fc")]),
    ("plain", [("norm1", "fc"), ("conv2",), BLOCKS]),
    ("attention", [BLOCKS]),
    ("attention", [("norm1", "norm2")]),
    ("residual", [("conv1", "conv2", "fc")]),
    ("branches", [branches.LAYERS]),
    ("branches", [("first.conv", "second.norm", "side.conv", "fc")]),
    ("branches", [("stem.norm", "first.conv")]),
    ("tokens", [("class", "embed", "norm", "slope", "fc")]),
]
HOWS = [(ACCUMULATE, 1), (ACCUMULATE, 4), (SUFFIX, 3)]


def learning(name: str, rows: Sequence[Sequence[str]]) -> DictWeights:
    return freeze(PROGRAMS[name], random_weights(PROGRAMS[name], step_size=0.03), *rows)


def adapted(name: str, weights: DictWeights, choice: Choice) -> tuple[Plan, Adaptation]:
    plan = plan_of(PROGRAMS[name], weights, choice)
    support = random_support(NETS[name], SAMPLES)
    return plan, ReferenceEngine().adapt(PROGRAMS[name], plan, weights, support, hooks=Hooks(measure=True))


def whole(program: Program) -> Outline:
    return outline(program, (True,) * len(program.layers), "dense", {})


def saved_bytes(lowered: Lowered) -> int:
    buffers = {b.name: s.bytes for one in lowered.programs for b in one.buffers for s in b.segments
               if s.term == "saved"}  # fmt: skip
    return sum(buffers.values())


@pytest.mark.parametrize(("schedule", "micro_batch"), HOWS)
@pytest.mark.parametrize("tiling", ["maps", "convs"])
@pytest.mark.parametrize(("name", "rows"), ROWS)
def test_every_number_is_the_same_to_the_bit(
    name: str, rows: list[tuple[str, ...]], tiling: str, schedule: str, micro_batch: int
) -> None:
    weights = learning(name, rows)
    _, truth = adapted(name, weights, Choice(micro_batch, schedule, tiling="maps"))
    plan, found = adapted(name, weights, Choice(micro_batch, schedule, recompute=True, tiling=tiling))
    exact = tiling == "maps"
    for parameter, expected in truth.updated.items():
        np.testing.assert_allclose(
            found.updated[parameter], expected, rtol=0, atol=0 if exact else 2e-6, err_msg=parameter
        )
    assert found.losses == pytest.approx(truth.losses, abs=0 if exact else 1e-5)
    assert found.measured_dynamic_bytes is not None
    assert found.measured_dynamic_bytes <= plan.dynamic_bytes
    for one, offsets in zip(plan.lowered.all_programs, plan.offsets, strict=True):
        places = [offsets[buffer.name] for buffer in one.buffers]
        check_plan([buffer.segments for buffer in one.buffers], places, plan.dynamic_bytes)


@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_selected_channels_are_the_same_to_the_bit(storage: str) -> None:
    weights = learning("attention", [BLOCKS])
    results = [
        adapted("attention", weights, Choice(2, storage=storage, recompute=on))[1].updated
        for on in (False, True)
    ]
    for parameter, expected in results[0].items():
        np.testing.assert_array_equal(results[1][parameter], expected)


@pytest.mark.parametrize("name", ["plain", "attention", "branches", "tokens"])
def test_less_is_kept_and_the_plan_says_so(name: str) -> None:
    weights = learning(name, [[layer.name for layer in PROGRAMS[name].layers]])
    plans = [plan_of(PROGRAMS[name], weights, Choice(1, recompute=on)) for on in (False, True)]
    before, after = (saved_bytes(plan.lowered) for plan in plans)
    assert after < 0.9 * before
    assert plans[1].terms["saved"] < plans[0].terms["saved"]


def test_of_a_block_only_normalised_maps_and_bits_are_kept() -> None:
    one = with_recomputation(whole(PROGRAMS["branches"]))
    large = [n for n in one.saved() if one.tensors[n].size_bytes(1) >= 512 and one.tensors[n].role != "input"]
    maps = [name for name in large if one.tensors[name].dtype == "float32"]
    assert maps == ["stem.x_hat", "first.x_hat", "second.x_hat", "side.x_hat"]


def test_the_gradient_of_a_sum_is_made_again_for_the_second_branch() -> None:
    one = with_recomputation(whole(PROGRAMS["branches"]))
    _, backward = one.parts()
    kinds = [op.kind for op in backward]
    assert kinds.count("MaxPoolGrad") == 2
    readers = [op for op in backward if "g::sum" in op.inputs]
    assert {op.layer for op in readers if op.kind == "GroupNormInputGrad"} == {"second.norm"}
    (again,) = [op for op in backward if op.kind == "GroupNormInputGrad" and op.layer == "side.norm"]
    assert again.inputs[0] == "g::sum@again"
    assert backward.index(again) - kinds.index("MaxPoolGrad", kinds.index("MaxPoolGrad") + 1) <= 4


def test_what_would_keep_more_is_left_alone() -> None:
    """Without a gradient for the first norm its x_hat is not kept: the pooled map is smaller."""
    program = PROGRAMS["plain"]
    mask = tuple(layer.name == "conv2" for layer in program.layers)
    before = outline(program, mask, "dense", {})
    after = with_recomputation(before)
    assert after.saved() == before.saved()
    assert "p1" in after.saved()
    residual = whole(residual_program())
    assert with_recomputation(residual) == residual


def test_every_clone_is_read_and_comes_right_before_its_readers() -> None:
    for program in PROGRAMS.values():
        one = with_recomputation(whole(program))
        ops = one.ordered.ops
        written = {name: index for index, op in enumerate(ops) for name in op.outputs if "@again" in name}
        for name, index in written.items():
            readers = [i for i, op in enumerate(ops) if name in op.inputs]
            assert readers, name
            assert min(readers) > index >= one.ordered.forward
            assert min(readers) - index <= REACH


MAP = ("N", 2, 4, 4)
TENSORS = {name: Tensor(name, MAP) for name in ("x", "y", "z", *(f"o{i}" for i in range(40)))}
RELU = Op("Relu", ("x",), ("y", ""))
DOUBLE = Op("Add", ("y", "y"), ("z",))


def reading(name: str, number: int, kind: str = "Scale") -> Op:
    attrs: dict[str, Any] = {"factor": 1.0, "offset": 0.0} if kind == "Scale" else {}
    return Op(kind, (name,), (f"o{number}",), attrs=attrs)


def test_readers_close_together_share_a_clone() -> None:
    clones = Clones({"y": RELU}, TENSORS)
    ops = clones.before_readers([reading("y", 0), reading("o0", 1), reading("y", 2)])
    assert [op.kind for op in ops] == ["Relu", "Scale", "Scale", "Scale"]
    assert ops[1].inputs == ops[3].inputs == ("y@again",)
    assert clones.tensors["y@again"] == Tensor("y@again", MAP)


def test_readers_far_apart_and_behind_a_convolution_have_clones_of_their_own() -> None:
    far = [reading("y", 0), *(reading(f"o{i}", i + 1) for i in range(REACH)), reading("y", 30)]
    barred = [reading("y", 0, "FcInputGrad"), reading("y", 1)]
    for ops in (far, barred):
        found = [op.inputs[0] for op in Clones({"y": RELU}, TENSORS).before_readers(ops)]
        assert [name for name in found if name.startswith("y")] == ["y@again", "y@again2"]


def test_a_value_that_is_written_serves_its_first_readers() -> None:
    ops = [RELU, reading("y", 0, "FcInputGrad"), reading("y", 1)]
    found = Clones({"y": RELU}, TENSORS).before_readers(ops)
    assert [op.inputs[0] for op in found] == ["x", "y", "x", "y@again"]


def test_clones_are_made_of_clones() -> None:
    found = Clones({"y": RELU, "z": DOUBLE}, TENSORS).before_readers([reading("z", 0)])
    assert [(op.inputs, op.outputs) for op in found] == [
        (("x",), ("y@again", "")),
        (("y@again", "y@again"), ("z@again",)),
        (("z@again",), ("o0",)),
    ]
