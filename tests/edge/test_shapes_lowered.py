"""What lowering writes fits, too: every pass and every choice, whole maps and slices of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import pytest
from edge_adapt.edge.lower import Choice, lower, lower_predict
from edge_adapt.edge.lower.choice import ACCUMULATE, CACHED_SUFFIX
from edge_adapt.edge.lower.table import LOAD, Slices, Step, StepProgram
from edge_adapt.edge.program import BATCH, DTYPE_BITS, Op, Program, Tensor
from edge_adapt.edge.shapes import check_operands

from .branches import branch_program
from .dense import TASKS, dense_program
from .programs import Net, conv_program, masks, residual_program
from .separable import separable_program
from .suffixes import token_program

SAMPLES = 5
PROGRAMS: Mapping[str, Program] = {
    "plain": conv_program(),
    "attention": conv_program(Net(size=24, rho=0.3)),
    "given selections": conv_program(Net(size=24, rho=0.3, keep=True)),
    "residual": residual_program(Net(size=16)),
    "branches": branch_program(),
    "separable": separable_program(Net()),
    "tokens": token_program(),
    "policy": dense_program(TASKS["motors over time"]),
}
CHOICES = [
    Choice(2, schedule, storage, saved_bits, cache_bits, recompute, tiling)
    for schedule, storage, (saved_bits, cache_bits), recompute, tiling in product(
        (ACCUMULATE, CACHED_SUFFIX),
        ("dense", "sparse"),
        ((32, 32), (8, 16)),
        (False, True),
        ("maps", "norms", "convs"),
    )
]


def op_of(step: Step) -> Op:
    return Op(step.kind, step.inputs, step.outputs, step.layer, step.attrs)


def whole_tensors(program: StepProgram) -> dict[str, Tensor]:
    return {name: Tensor(name, value.shape, value.dtype) for name, value in program.values.items()}


def sliced_tensors(inner: Slices, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the steps inside see: of every value a sample and a block of channels."""
    found = {}
    for name in {name for step in inner.steps for name in (*step.inputs, *step.outputs) if name}:
        tile = inner.tiles.get(name)
        if tile is not None and DTYPE_BITS[tile.dtype] >= 8:
            shape: tuple[int | str, ...] = tile.shape
            batched = name not in whole or whole[name].batched
            found[name] = Tensor(name, (BATCH, *shape[1:]) if batched else shape, tile.dtype)
        elif tile is None:
            found[name] = cut(whole[name], inner.blocks if name in inner.sliced else 1)
    return found


def cut(tensor: Tensor, blocks: int) -> Tensor:
    axis, shape = int(tensor.batched), tensor.shape
    if blocks == 1:
        return tensor
    return Tensor(tensor.name, (*shape[:axis], int(shape[axis]) // blocks, *shape[axis + 1 :]), tensor.dtype)


def check_steps(program: StepProgram, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Check every step that names known shapes; yield what was checked."""
    whole = {**tensors, **whole_tensors(program)}
    for step in program.steps:
        if step.slices is None and step.kind != LOAD:
            check_operands(op_of(step), whole)
            yield step.kind
        elif step.slices is not None:
            inside = sliced_tensors(step.slices, whole)
            for one in step.slices.steps:
                if inside.keys() >= {name for name in (*one.inputs, *one.outputs) if name}:
                    check_operands(op_of(one), inside)
                    yield f"{one.kind} of a slice"


@pytest.mark.parametrize("frozen", [False, True], ids=["all layers", "head only"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_step_fits(name: str, frozen: bool) -> None:
    program = PROGRAMS[name]
    head = [program.layers[-1].name] if frozen else []
    for choice in CHOICES:
        lowered = lower(program, masks(program, *head), SAMPLES, choice)
        for one in lowered.all_programs:
            assert list(check_steps(one, program.tensors))
    for one in lower_predict(program, 2).programs:
        assert list(check_steps(one, program.tensors))


def test_the_choices_make_every_operation_of_lowering_and_slices_of_convolutions() -> None:
    made = {
        kind
        for name in ("attention", "separable", "branches")
        for choice in CHOICES
        for one in lower(PROGRAMS[name], masks(PROGRAMS[name]), SAMPLES, choice).all_programs
        for kind in check_steps(one, PROGRAMS[name].tensors)
    }
    expected = {"Zero", "SelectChannels", "ConvWeightGradSparse", "Quantise", "Dequantise"}
    sliced = {f"{kind} of a slice" for kind in ("Conv", "GroupNorm", "GroupNormInputGrad", "ConvWeightGrad")}
    assert made >= expected | sliced
