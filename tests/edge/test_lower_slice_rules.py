"""Every rule of `slice_rules`: an operation on slices, sample by sample, writes what it writes at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.engines.slices import SlicesCall
from edge_adapt.edge.lower.slice_rules import RULES, divisor, roles, rule_of, slice_attrs
from edge_adapt.edge.lower.table import SLICES, Slices, Step
from edge_adapt.edge.program import Tensor
from edge_adapt.edge.reference import KERNELS

from .kernel_cases import CHANNELS, CONV, MAP, SAMPLES, SIDE, Case, garbage, run
from .kernel_table import case_table

TABLE = case_table(np.float32)
WORKSPACE_BYTES = 1 << 20
GROUPS = {**CONV, "groups": 8}
MULTIPLES = {"strides": [1], "pads": [1, 1], "dilations": [1], "groups": CHANNELS}


def normal(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def out(*shape: int) -> Any:
    return garbage(shape, np.float32)


def further_cases() -> dict[str, Case]:
    """What the kernels' own cases lack: groups, 1-D maps, per-channel parameters, one slope for all."""
    x, gy, c, weights = normal(*MAP), normal(*MAP), normal(CHANNELS), normal(SAMPLES)
    w, wide = normal(CHANNELS, CHANNELS // 8, 3, 3), normal(2 * CHANNELS, 1, 3)
    signal, fw, bw = normal(SAMPLES, CHANNELS, SIDE), normal(SAMPLES, CHANNELS), normal(SAMPLES, CHANNELS)
    kept, index = normal(SAMPLES, 5, SIDE, SIDE), np.tile(np.int32([0, 3, 9, 20, -1]), (SAMPLES, 1))
    gw = np.zeros((CHANNELS, CHANNELS, 3, 3), np.float32)
    return {
        "grouped Conv": Case("Conv", [x, w, c], [out(*MAP)], GROUPS),
        "1-D Conv with two outputs per channel": Case(
            "Conv", [signal, wide, normal(2 * CHANNELS)], [out(SAMPLES, 2 * CHANNELS, SIDE)], MULTIPLES
        ),
        "grouped ConvInputGrad": Case("ConvInputGrad", [gy, w], [out(*MAP)], GROUPS),
        "grouped ConvWeightGrad": Case(
            "ConvWeightGrad", [x, gy, weights, fw, bw], [np.zeros_like(w)], GROUPS
        ),
        "sparse ConvWeightGrad": Case("ConvWeightGradSparse", [kept, index, gy, weights, bw], [gw], CONV),
        "Affine along channels": Case("Affine", [x, c, c], [out(*MAP)], {"axis": 1}),
        "AffineInputGrad along channels": Case("AffineInputGrad", [x, c], [out(*MAP)], {"axis": 1}),
        "PRelu with one slope": Case("PRelu", [x, normal(1)], [out(*MAP)], {}),
        "PReluInputGrad with one slope": Case("PReluInputGrad", [gy, x, normal(1)], [out(*MAP)], {}),
        "mean of vectors": Case("Mean", [x], [out(SAMPLES, CHANNELS)], {"axes": [2, 3], "keepdims": False}),
    }


BARRIERS = {
    "ConvInputGrad",
    "Affine",
    "AffineInputGrad",
}  # as in the kernels' cases: dense; along the last axis
CASES = {kind: TABLE[kind] for kind in RULES if kind not in BARRIERS and kind in TABLE} | further_cases()


def tensor(name: str, array: Any) -> Tensor:
    """Say what an array is: packed bytes count as bits, spread over the channels."""
    batch: tuple[int | str, ...] = ("N",) if array.shape[0] == SAMPLES else (array.shape[0],)
    if array.dtype == np.uint8 and array.ndim == 2:
        return Tensor(name, (*batch, CHANNELS, array.shape[1] * 8 // CHANNELS), "bit1")
    return Tensor(name, (*batch, *array.shape[1:]), str(array.dtype))


def step_of(case: Case) -> tuple[Step, dict[str, Any]]:
    """Return the operation as a step, and its arrays by name."""
    inputs, outputs = (
        tuple("" if a is None else f"{side}{i}" for i, a in enumerate(arrays))
        for side, arrays in (("in", case.inputs), ("out", case.outputs))
    )
    named = zip((*inputs, *outputs), (*case.inputs, *case.outputs), strict=True)
    step = Step(case.kind, inputs, outputs, case.attrs, workspace_bytes=WORKSPACE_BYTES)
    return step, {name: array for name, array in named if name}


def sliced_call(case: Case, blocks: int) -> SlicesCall:
    step, arrays = step_of(case)
    tensors = {name: tensor(name, array) for name, array in arrays.items()}
    rule = rule_of(step, tensors)
    assert rule is not None
    assert divisor(step, rule, tensors) % blocks == 0
    inner = replace(step, attrs=slice_attrs(step, rule, blocks))
    cut = frozenset(name for name, is_cut in roles(step, rule).items() if is_cut)
    slices = Slices(blocks, cut, (), (inner,), (), {}, 0, WORKSPACE_BYTES, {})
    batched = {name for name, one in tensors.items() if one.batched}
    outer = Step(SLICES, step.inputs, step.outputs, slices=slices)
    return SlicesCall(outer, arrays, batched, SAMPLES, np.empty(WORKSPACE_BYTES, np.uint8))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_slices_of_an_operation_write_what_it_writes_at_once(name: str, blocks: int) -> None:
    case, whole = CASES[name].copy(), CASES[name].copy()
    run(whole.kind, whole.inputs, whole.outputs, **whole.attrs)
    sliced_call(case, blocks).run({})
    for found, expected in zip(case.outputs, whole.outputs, strict=True):
        if found is not None:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", sorted(BARRIERS))
def test_what_needs_all_channels_is_not_cut(kind: str) -> None:
    step, arrays = step_of(TABLE[kind])
    assert rule_of(step, {name: tensor(name, array) for name, array in arrays.items()}) is None


def test_every_rule_is_of_a_kernel_and_tried_here() -> None:
    assert set(RULES) <= set(KERNELS)
    assert {case.kind for case in CASES.values()} == set(RULES)


def test_packed_values_that_do_not_end_on_bytes_are_not_cut() -> None:
    step = Step("Relu", ("x",), ("y", "mask"))
    maps = {name: Tensor(name, ("N", 6, 5, 5)) for name in ("x", "y")}
    rule = rule_of(step, maps)
    assert rule is not None
    assert divisor(step, rule, maps | {"mask": Tensor("mask", ("N", 6, 5, 5), "bit1")}) == 1
    assert divisor(step, rule, maps | {"mask": Tensor("mask", ("N", 6, 4, 4), "bit1")}) == 6
    assert divisor(step, rule, maps | {"mask": Tensor("mask", ("N", 6, 2, 2), "bit1")}) == 3
