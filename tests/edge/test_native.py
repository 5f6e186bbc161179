"""Every native kernel against its reference kernel, and what all of them promise about memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import native
from edge_adapt.edge.reference import KERNELS

from .kernel_cases import Case, garbage, selected
from .kernel_table import case_table
from .native_calls import RUNNABLE, call, check, expected, variants

CASES = case_table(np.float32)
KINDS = sorted(native.load(RUNNABLE[0]).codes) if RUNNABLE else ["none"]
IN_PLACE = [(kind, *pair) for kind in KINDS if kind in KERNELS for pair in KERNELS[kind].in_place.items()]
kinds = pytest.mark.parametrize("kind", KINDS)


@variants()
def test_a_variant_says_what_it_is(variant: str) -> None:
    library = native.load(variant)
    assert library.instruction_set == variant
    assert set(library.codes) <= set(KERNELS)


@variants()
@kinds
@pytest.mark.parametrize("threads", [1, 2])
def test_every_kernel_matches_the_reference(variant: str, kind: str, threads: int) -> None:
    if KERNELS[kind].alias:
        pytest.skip("an alias does nothing")
    case = CASES[kind].copy()
    outputs = [
        None if o is None else o.astype(np.float64) if o.dtype == np.float32 else o for o in case.outputs
    ]
    check(variant, kind, case.inputs, outputs, case.attrs, tolerance=1e-5, threads=threads)


@variants()
@kinds
def test_a_call_with_two_threads_repeats_exactly(variant: str, kind: str) -> None:
    case = CASES[kind]
    outputs = [call(variant, kind, case.inputs, case.outputs, case.attrs, threads=2) for _ in range(3)]
    for first, *others in zip(*outputs, strict=True):
        for other in others:
            np.testing.assert_array_equal(first, other)


@variants()
@kinds
def test_the_workspace_does_not_grow_with_the_batch(variant: str, kind: str) -> None:
    case = CASES[kind]
    samples = next(a.shape[0] for a in (*case.inputs, *case.outputs) if a is not None)
    sizes = []
    for batch in (1, 25):
        shapes = [
            [
                None if a is None else (batch, *a.shape[1:]) if a.shape[0] == samples else a.shape
                for a in arrays
            ]
            for arrays in (case.inputs, case.outputs)
        ]
        sizes.append(native.load(variant).workspace_bytes(kind, shapes[0], shapes[1], case.attrs, 2))
    assert sizes[0] == sizes[1]


@variants()
@pytest.mark.parametrize(("kind", "output", "source"), IN_PLACE)
def test_in_place_equals_out_of_place(variant: str, kind: str, output: int, source: int) -> None:
    for threads in (1, 2):
        apart = call(variant, kind, CASES[kind].inputs, CASES[kind].outputs, CASES[kind].attrs, threads)
        together = in_place(variant, CASES[kind].copy(), output, source, threads)
        for one, other in zip(apart, together, strict=True):
            np.testing.assert_array_equal(one, other)


def in_place(variant: str, case: Case, output: int, source: int, threads: int) -> list[Any]:
    """Run a case with one output in the memory of an input."""
    before, after = case.inputs[source], case.outputs[output]
    assert before is not None
    assert after is not None
    memory = garbage((max(before.size, after.size),), before.dtype)
    memory[: before.size] = before.reshape(-1)
    case.inputs[source] = memory[: before.size].reshape(before.shape)
    case.outputs[output] = memory[: after.size].reshape(after.shape)
    library = native.load(variant)
    shapes = [[None if a is None else a.shape for a in arrays] for arrays in (case.inputs, case.outputs)]
    size = library.workspace_bytes(case.kind, shapes[0], shapes[1], case.attrs, threads)
    library.run(case.kind, case.inputs, case.outputs, case.attrs, np.empty(size, np.uint8), threads)
    return case.outputs


DROPPED = [("GroupNorm", 0), ("GroupNorm", 1), ("Relu", 0), ("Relu", 1), ("MaxPool", 0), ("MaxPool", 1)]
DROPPED += [("SoftmaxCrossEntropy", 0), ("SoftmaxCrossEntropy", 1), ("MeanSquaredError", 0)]


@variants()
@pytest.mark.parametrize(("kind", "wanted"), DROPPED)
def test_an_output_is_the_same_when_the_others_are_dropped(variant: str, kind: str, wanted: int) -> None:
    case = CASES[kind]
    whole = call(variant, kind, case.inputs, case.outputs, case.attrs)
    part = [o if i == wanted else None for i, o in enumerate(case.outputs)]
    found = call(variant, kind, case.inputs, part, case.attrs)
    np.testing.assert_array_equal(found[wanted], whole[wanted])


@variants()
def test_more_kept_channels_than_slots_are_refused(variant: str) -> None:
    x, gamma = np.ones((2, 4, 3), np.float32), np.ones((2, 4), np.float32)
    outputs = [np.empty((2, 3, 3), np.float32), np.empty((2, 3), np.int32)]
    with pytest.raises(ValueError, match="more channels"):
        call(variant, "SelectChannels", [x, gamma], outputs, {})


@variants()
def test_not_a_number_is_not_hidden(variant: str) -> None:
    x = np.linspace(-1, 1, 72, dtype=np.float32).reshape(1, 2, 6, 6)
    x[0, 1, 3, 3] = np.nan
    pool = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    wide = {"kernel": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1]}
    for kind, attrs, y in (("Relu", {}, x), ("MaxPool", pool, x[:, :, ::2, ::2]), ("MaxPool", wide, x)):
        outputs: list[Any] = [garbage(y.shape), None]
        found, wanted = call(variant, kind, [x], outputs, attrs)[0], expected(kind, [x], outputs, attrs)[0]
        np.testing.assert_array_equal(found, wanted)
        assert found is not None
        assert np.isnan(found).any()


def test_kept_channels_come_from_the_same_selection() -> None:
    x, gamma = np.ones((1, 4, 2), np.float32), np.float32([[0, 2, 0, 3]])
    kept, index = selected(x, gamma, 3)
    assert index.tolist() == [[1, 3, -1]]
    for variant in RUNNABLE:
        found = call(
            variant, "SelectChannels", [x, gamma], [garbage(kept.shape), garbage(index.shape, np.int32)], {}
        )
        np.testing.assert_array_equal(found[0], kept)
        np.testing.assert_array_equal(found[1], index)
