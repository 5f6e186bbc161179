"""What every kernel promises about memory: nothing hidden, exact workspace, in place where it says so."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference import KERNELS

from .kernel_cases import Case, garbage, run, workspace_for
from .kernel_table import case_table

CASES = case_table(np.float32)
IN_PLACE = [(kind, *pair) for kind in CASES for pair in KERNELS[kind].in_place.items()]
HIDDEN_BYTES = 2 * 4096  # NumPy's buffers and small results, and Python's own objects


def test_every_kernel_has_a_case() -> None:
    assert set(CASES) == set(KERNELS)


@pytest.mark.parametrize("kind", CASES)
def test_nothing_large_is_allocated_behind_the_plan(kind: str) -> None:
    case = CASES[kind].copy()
    workspace = workspace_for(kind, case.inputs, case.outputs, case.attrs)
    for _ in range(4):  # the first calls may fill caches of the interpreter
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        KERNELS[kind].run(case.inputs, case.outputs, case.attrs, workspace)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak - before < HIDDEN_BYTES


def test_the_allocation_check_sees_a_hidden_map() -> None:
    x = CASES["Relu"].inputs[0]
    assert x is not None
    tracemalloc.start()
    (x[0] * 2).sum()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak > x[0].nbytes > 6 * HIDDEN_BYTES


@pytest.mark.parametrize("kind", CASES)
def test_the_workspace_does_not_grow_with_the_batch(kind: str) -> None:
    case = CASES[kind]
    assert _workspace_bytes(case, batch=1) == _workspace_bytes(case, batch=25)


def _workspace_bytes(case: Case, batch: int) -> int:
    """Workspace of the case with another batch; only batched tensors start with the number of samples."""
    samples = next(a.shape[0] for a in (*case.inputs, *case.outputs) if a is not None)
    shapes = [
        [None if a is None else (batch, *a.shape[1:]) if a.shape[0] == samples else a.shape for a in arrays]
        for arrays in (case.inputs, case.outputs)
    ]
    return KERNELS[case.kind].workspace_bytes(shapes[0], shapes[1], case.attrs, 4)


@pytest.mark.parametrize("kind", CASES)
def test_inputs_are_only_read_and_old_memory_does_not_matter(kind: str) -> None:
    clean, dirty = CASES[kind].copy(), CASES[kind].copy()
    accumulates = any(o is not None and not np.any(o) for o in clean.outputs)
    if not accumulates and not KERNELS[kind].alias:
        for output in filter(lambda o: o is not None, clean.outputs):
            output.fill(0)
    for case in (clean, dirty):
        run(kind, case.inputs, case.outputs, **case.attrs)
        for after, before in zip(case.inputs, CASES[kind].inputs, strict=True):
            np.testing.assert_array_equal(after, before)
    for one, other in zip(clean.outputs, dirty.outputs, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.isnan(np.asarray(one, np.float64)).any()


@pytest.mark.parametrize(("kind", "output", "source"), IN_PLACE)
def test_in_place_equals_out_of_place(kind: str, output: int, source: int) -> None:
    apart, together = CASES[kind].copy(), CASES[kind].copy()
    run(kind, apart.inputs, apart.outputs, **apart.attrs)
    before, after = _present(together.inputs[source]), _present(together.outputs[output])
    memory = garbage((max(before.size, after.size),), before.dtype)
    together.inputs[source] = memory[: before.size].reshape(before.shape)
    together.outputs[output] = memory[: after.size].reshape(after.shape)
    np.copyto(together.inputs[source], before)
    run(kind, together.inputs, together.outputs, **together.attrs)
    for one, other in zip(apart.outputs, together.outputs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_group_norm_may_drop_x_hat_and_overwrite_its_input() -> None:
    case = CASES["GroupNorm"].copy()
    x, scale, bias = (_present(a) for a in case.inputs)
    expected = run("GroupNorm", [x, scale, bias], case.outputs, **case.attrs)
    np.testing.assert_array_equal(run("GroupNorm", [x, scale, bias], [x, None, None], **case.attrs), expected)


DROPPED = [("GroupNorm", 0), ("GroupNorm", 1), ("Relu", 0), ("Relu", 1), ("MaxPool", 0), ("MaxPool", 1)]
DROPPED += [("SoftmaxCrossEntropy", 0), ("SoftmaxCrossEntropy", 1)]


@pytest.mark.parametrize(("kind", "wanted"), DROPPED)
def test_an_output_is_the_same_when_the_others_are_dropped(kind: str, wanted: int) -> None:
    whole, part = CASES[kind].copy(), CASES[kind].copy()
    run(kind, whole.inputs, whole.outputs, **whole.attrs)
    part.outputs = [o if i == wanted else None for i, o in enumerate(part.outputs)]
    run(kind, part.inputs, part.outputs, **part.attrs)
    np.testing.assert_array_equal(part.outputs[wanted], whole.outputs[wanted])


WINDOWS = [(7, 3, 1, 1), (9, 3, 2, 0), (9, 2, 2, 1), (12, 2, 2, 0), (5, 5, 5, 0), (6, 1, 1, 0), (6, 2, 1, 1)]


@pytest.mark.parametrize(("side", "kernel", "stride", "pad"), WINDOWS)
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_pooling_may_overwrite_its_input(
    side: int, kernel: int, stride: int, pad: int, channels: int
) -> None:
    attrs: dict[str, Any] = {"kernel": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
    out = (side + 2 * pad - kernel) // stride + 1
    shapes = [(4, channels, side, side), (4, channels, out, out)]
    memory = garbage((int(max(np.prod(shape) for shape in shapes)),))
    x, y = (memory[: int(np.prod(shape))].reshape(shape) for shape in shapes)
    x[...] = np.random.default_rng(3).normal(size=x.shape)
    expected = run("MaxPool", [x], [garbage(y.shape), None], **attrs)
    np.testing.assert_array_equal(run("MaxPool", [x], [y, None], **attrs), expected)


def _present(array: Any) -> Any:
    assert array is not None
    return array
