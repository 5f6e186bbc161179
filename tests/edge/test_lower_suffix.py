"""Prefix and suffix: what is computed once, what is cached, and when parameters are updated."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from edge_adapt.edge.lower import Choice, Lowered, Step, StepProgram, lower
from edge_adapt.edge.plan import check_plan
from edge_adapt.edge.plan.offsets import ALIGNMENT
from edge_adapt.edge.plan.search import updated_layers
from edge_adapt.edge.program import Program

from .programs import Net, conv_program, masks, random_weights, residual_program
from .suffixes import SAMPLES, STEPS, SUFFIX, freeze, plan_of, token_program

CONV = {"plain": conv_program(Net()), "attention": conv_program(Net(rho=0.3))}
PROGRAMS = {**CONV, "residual": residual_program(), "tokens": token_program()}
ALL = ("conv1", "norm1", "conv2", "norm2", "fc")


def lowered(program: Program, *rows: Sequence[str], micro_batch: int = 1, storage: str = "dense") -> Lowered:
    weights = freeze(program, random_weights(program), *rows)
    updated = updated_layers(program, weights.tensors["alpha"], STEPS)
    return lower(program, updated, SAMPLES, Choice(micro_batch, SUFFIX, storage))


def caches(one: Lowered) -> dict[str, int]:
    return {cache.name: cache.bytes for cache in one.caches}


def kinds(program: StepProgram | None) -> list[str]:
    return [] if program is None else [step.kind for step in program.steps]


def steps_of(program: StepProgram, kind: str) -> list[Step]:
    return [step for step in program.steps if step.kind == kind]


def unchanging(program: Program, updated: set[str]) -> set[str]:
    """Return, by walking the program, every tensor that the updates and the labels cannot reach."""
    reached = {n for layer in program.layers if layer.name in updated for n in layer.params}
    reached |= {t.name for t in program.with_role("input") if t.name != "images"}
    for op in (op for section in program.sections.values() for op in section):
        norm = op.kind in ("GroupNorm", "LayerNorm")
        y, *others = op.outputs
        if reached.intersection(op.inputs):
            reached.add(y)
        if reached.intersection(op.inputs[:1] if norm else op.inputs):
            reached.update(others)
    return set(program.tensors) - reached


MASKS = {
    "plain": [ALL, ("fc",), ("conv2", "fc"), ("norm2",), ("norm1", "conv2"), ("conv1",), ("norm1",)],
    "attention": [ALL, ("fc",), ("conv2", "norm2", "fc"), ("norm1",)],
    "residual": [("fc",), ("conv2",), ("conv2", "fc"), ("conv1",)],
    "tokens": [("fc",), ("slope",), ("norm",), ("norm", "fc"), ("embed",), ("class",)],
}
CASES = [(name, layers) for name, found in MASKS.items() for layers in found]


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_the_prefix_is_all_that_no_update_reaches_and_the_suffix_only_the_rest(
    name: str, layers: tuple[str, ...]
) -> None:
    program = PROGRAMS[name]
    fixed = unchanging(program, set(layers))
    one = lowered(program, layers)
    written = {n for step in one.prefix.steps for n in step.outputs if n} if one.prefix else set()
    assert written <= fixed
    for step in one.programs[0].steps:
        again = fixed.intersection(step.outputs) - {"images"}
        assert not again or step.kind in ("Reshape", "Expand", "Concat", "Add"), step
    read = {n for step in one.programs[0].steps for n in step.inputs}
    assert set(caches(one)) == (written & read) - {"images"}


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_caches_have_the_bytes_of_all_samples_and_lie_apart_from_everything(
    name: str, layers: tuple[str, ...]
) -> None:
    program = PROGRAMS[name]
    plan = plan_of(program, freeze(program, random_weights(program), layers), Choice(2, SUFFIX))
    placed = plan.placed()
    for cache in plan.lowered.caches:
        shape = program.tensors[cache.name].shape
        assert cache.bytes == SAMPLES * 4 * math.prod(int(axis) for axis in shape[1:])
        spans = [item for item in placed if item.name == cache.name]
        assert {item.program for item in spans} == set(range(len(plan.lowered.all_programs)))
        assert {item.bytes for item in spans} == {cache.bytes}
    for number, one in enumerate(plan.lowered.all_programs):
        mine = [item for item in placed if item.program == number]
        check_plan([[item] for item in mine], [item.offset for item in mine], plan.dynamic_bytes, ALIGNMENT)  # type: ignore[list-item]
        assert max(item.last for item in mine) == len(one.steps) - 1
    assert sum(plan.terms.values()) == plan.planned_peak_bytes
    assert plan.terms["gaps"] >= 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_anything_to_compute_once_there_is_no_prefix(name: str) -> None:
    program = PROGRAMS[name]
    one = lowered(program, [layer.name for layer in program.layers if layer.name != "norm1"])
    if name == "attention":
        assert set(caches(one)) == {"fw::conv1"}
        return
    assert one.prefix is None
    assert one.caches == ()
    assert one.all_programs == one.programs
    assert "Load" in kinds(one.programs[0])


def test_a_norm_that_learns_on_a_frozen_convolution_is_cut_so_that_x_hat_is_the_only_cache() -> None:
    one = lowered(CONV["plain"], ("norm1", "fc"))
    assert one.prefix is not None
    assert kinds(one.prefix) == ["Load", "Conv", "GroupNorm"]
    assert one.prefix.steps[2].outputs == ("", "x_hat1", "")
    assert set(caches(one)) == {"x_hat1"}
    affine = one.programs[0].steps[0]
    assert (affine.kind, affine.inputs) == ("Affine", ("x_hat1", "norm1.scale", "norm1.bias"))
    assert affine.outputs == ("z1",)
    assert affine.attrs == {"axis": 1}
    assert "Conv" in kinds(one.programs[0])  # the second one
    assert kinds(one.programs[0]).count("GroupNorm") == 1


def test_a_layer_norm_is_cut_along_its_last_axes() -> None:
    one = lowered(PROGRAMS["tokens"], ("norm",))
    assert set(caches(one)) == {"x_hat", "tokens"}  # the skip connection reads the norm's input
    (affine,) = steps_of(one.programs[0], "Affine")
    assert (affine.inputs, affine.attrs) == (("x_hat", "norm.scale", "norm.bias"), {"axis": -1})


def test_only_the_features_are_cached_for_the_head() -> None:
    one = lowered(CONV["attention"], ("fc",))
    assert set(caches(one)) == {"p2"}
    assert kinds(one.programs[0]).count("Conv") == 0
    assert one.programs[0].values["flat"].cached
    assert one.programs[0].values["flat"].buffer == "p2"


def test_what_is_larger_behind_a_cheap_operation_is_cached_before_it() -> None:
    one = lowered(PROGRAMS["tokens"], ("embed",))
    assert one.prefix is None  # the class token's copies are made again from its parameter
    assert "Expand" in kinds(one.programs[0])
    frozen = lowered(PROGRAMS["tokens"], ("fc",))
    assert {"Expand", "Concat"} <= set(kinds(frozen.prefix))
    assert set(caches(frozen)) == {"bent"}


def test_steps_with_other_masks_share_one_prefix_and_the_union_of_its_caches() -> None:
    one = lowered(CONV["attention"], ("fc",), ("norm2", "fc"), ("conv2",))
    assert one.order == (0, 1, 2)
    assert set(caches(one)) == {"p1", "fw::conv2"}  # conv2 learns in step 3, so steps 1 and 2 compute it, too
    assert all("Conv" in kinds(program) for program in one.programs)
    assert [program.mask for program in one.programs] == [
        row[0]
        for row in (masks(CONV["attention"], *names) for names in (("fc",), ("norm2", "fc"), ("conv2",)))
    ]
    assert all("fw::conv2" not in program.values for program in one.programs[:2])


def test_recorded_selections_make_attention_vary() -> None:
    recorded = conv_program(Net(rho=0.3, keep=True))
    assert set(caches(lowered(recorded, ("conv2",)))) == {"p1"}
    assert set(caches(lowered(CONV["attention"], ("conv2",)))) == {"p1", "fw::conv2"}


def test_attention_with_another_cap_in_another_step_is_not_shared() -> None:
    program = conv_program(Net(rho=0.3))
    updated = masks(program, "conv2", steps=2)
    one = lower(program, updated, SAMPLES, Choice(1, SUFFIX), [{"fw::conv2": 3}, {"fw::conv2": 5}])
    assert set(caches(one)) == {"p1"}
    caps = [
        [s.attrs["cap"] for s in steps_of(p, "ChannelAttention") if s.outputs == ("fw::conv2",)]
        for p in one.programs
    ]
    assert caps == [[3], [5]]
    same = lower(program, updated, SAMPLES, Choice(1, SUFFIX), [{"fw::conv2": 3}, {"fw::conv2": 3}])
    assert set(caches(same)) == {"p1", "fw::conv2"}


def test_sparse_storage_is_left_to_inputs_that_are_not_cached_anyway() -> None:
    program = conv_program(Net(blocks=3, rho=0.5))
    one = lowered(program, ("conv2", "conv3"), storage="sparse")
    assert set(caches(one)) == {"p1", "fw::conv2"}
    (select,) = steps_of(one.programs[0], "SelectChannels")
    assert select.inputs == ("p2", "fw::conv3")


@pytest.mark.parametrize(("name", "layers"), CASES)
@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_every_value_is_written_before_it_is_read(name: str, layers: tuple[str, ...], storage: str) -> None:
    one = lowered(PROGRAMS[name], layers, storage=storage)
    for program in one.all_programs:
        is_prefix = program is one.prefix
        written = {v.name for v in program.values.values() if not v.buffer and not (v.cached and is_prefix)}
        for step in program.steps:
            assert written.issuperset(filter(None, step.inputs)), step
            written.update(step.outputs)


@pytest.mark.parametrize(("name", "layers"), CASES)
def test_an_update_is_the_last_reader_of_its_parameter_and_comes_soon_after_its_gradient(
    name: str, layers: tuple[str, ...]
) -> None:
    program = PROGRAMS[name]
    (one,) = lowered(program, layers).programs
    assert one.updates_inside
    assert one.accumulators == ()
    assert one.body == (0, len(one.steps))
    place = {n: i for i, step in enumerate(one.steps) for n in step.outputs if n}
    learned = [layer for layer in program.layers if layer.name in layers]
    assert kinds(one).count("SgdUpdate") == sum(len(layer.params) for layer in learned)
    for layer in learned:
        for param, grad in zip(layer.params, layer.grads, strict=True):
            at = place[f"updated::{param}"]
            readers = [i for i, step in enumerate(one.steps) if param in step.inputs]
            assert max(readers) == at
            assert one.steps[at].inputs == (param, grad, "alpha")
            main = [s for s in one.steps[place[grad] + 1 : at] if s.kind.endswith("InputGrad")]
            assert len(main) <= 1  # at most the one that reads the parameter lies between


@pytest.mark.parametrize("classes", [5, 500])
def test_a_large_gradient_waits_for_the_input_gradient_and_a_small_one_does_not(classes: int) -> None:
    program = conv_program(Net(classes=classes))
    (one,) = lowered(program, ALL).programs
    found = kinds(one)
    weight = found.index("FcWeightGrad")
    assert (found.index("FcInputGrad") < weight) == (classes == 500)
    if classes == 500:
        assert found[weight - 1 : weight + 2] == ["Zero", "FcWeightGrad", "SgdUpdate"]
    norm = [i for i, step in enumerate(one.steps) if step.layer == "norm2"]
    assert [found[i] for i in norm] == (
        ["GroupNorm", "ScaleGrad", "BiasGrad", "GroupNormInputGrad", "SgdUpdate", "SgdUpdate"]
    )
