"""3x3 convolutions that are large enough for Winograd's algorithm, against the reference in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from edge_adapt.edge import native
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array
from .native_calls import call, check, expected, variants
from .test_native_conv import Problem, cases

LEAN = {"lean": True}


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Odd and even sides, paddings that differ from side to side, channels that fill no vector."""
    pads = tuple(draw(st.integers(0, 3)) for _ in range(4))
    size = tuple(draw(st.integers(10, 23)) for _ in range(2))
    channels, outputs = (draw(st.integers(8, 40)) for _ in range(2))
    return Problem(draw(st.integers(1, 3)), 1, channels, outputs, size, pads=pads)


@variants()
@settings(max_examples=40, deadline=None, derandomize=True)
@given(problems())
def test_random_3x3_convolutions_match_the_reference(variant: str, problem: Problem) -> None:
    for kind, inputs, outputs in cases(problem):
        check(variant, kind, inputs, outputs, problem.attrs)


@variants()
def test_blocks_of_rows_and_channels_add_up(variant: str) -> None:
    for channels, outputs in ((150, 9), (9, 150), (129, 70)):
        problem = Problem(1, 1, channels, outputs, (11, 14))
        for kind, inputs, arrays in cases(problem):
            check(variant, kind, inputs, arrays, problem.attrs)


def results(variant: str, problem: Problem, extra: dict[str, Any]) -> list[tuple[Array, Array]]:
    """Output and truth of the convolution and its two gradients."""
    return [
        (
            call(variant, kind, inputs, outputs, {**problem.attrs, **extra})[0],
            expected(kind, inputs, outputs, problem.attrs)[0],
        )
        for kind, inputs, outputs in cases(problem)[1:4]
    ]


@variants()
def test_winograd_is_as_exact_as_the_direct_way(variant: str) -> None:
    problem = Problem(2, 1, 64, 48, (20, 22))
    for extra in ({}, LEAN):
        for found, truth in results(variant, problem, extra):
            assert np.linalg.norm(found - truth) < 1e-6 * np.linalg.norm(truth)


@variants()
def test_lean_convolutions_save_workspace(variant: str) -> None:
    problem = Problem(1, 1, 64, 64, (20, 20))
    library = native.load(variant)
    for kind, inputs, outputs in cases(problem)[1:4]:
        shapes = [[None if a is None else a.shape for a in arrays] for arrays in (inputs, outputs)]
        sizes = [
            library.workspace_bytes(kind, shapes[0], shapes[1], {**problem.attrs, **extra})
            for extra in ({}, LEAN)
        ]
        assert sizes[1] < 50_000 < 300_000 < sizes[0] < 600_000


@variants()
def test_two_threads_match_the_reference_and_repeat_exactly(variant: str) -> None:
    for problem in (Problem(3, 1, 40, 70, (30, 31)), Problem(1, 1, 24, 200, (12, 12))):
        for kind, inputs, outputs in cases(problem):
            check(variant, kind, inputs, outputs, problem.attrs, threads=2)
            first, *others = (
                call(variant, kind, inputs, outputs, problem.attrs, threads=2)[0] for _ in range(3)
            )
            for other in others:
                np.testing.assert_array_equal(first, other)
