"""Native convolutions and their gradients against the reference kernels, over random geometries."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, selected
from .native_calls import call, check, variants


@dataclass(frozen=True)
class Problem:
    """A convolution in one or two dimensions: `channels` and `outputs` are those of one group."""

    batch: int = 2
    groups: int = 1
    channels: int = 2
    outputs: int = 3
    size: tuple[int, ...] = (6, 5)
    kernel: tuple[int, ...] = (3, 3)
    strides: tuple[int, ...] = (1, 1)
    dilations: tuple[int, ...] = (1, 1)
    pads: tuple[int, ...] = (1, 1, 1, 1)

    @property
    def attrs(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in ("strides", "dilations", "pads")}
        return {**lists, "groups": self.groups}

    @property
    def out(self) -> tuple[int, ...]:
        rank = len(self.size)
        return tuple(
            (self.size[i] + self.pads[i] + self.pads[i + rank] - self.dilations[i] * (self.kernel[i] - 1) - 1)
            // self.strides[i]
            + 1
            for i in range(rank)
        )

    def arrays(self) -> dict[str, Array]:
        rng = np.random.default_rng(0)
        x = (self.batch, self.groups * self.channels, *self.size)
        y = (self.batch, self.groups * self.outputs, *self.out)
        w = (y[1], self.channels, *self.kernel)
        shapes = {"x": x, "gy": y, "w": w, "b": y[1:2], "weights": x[:1], "fw": x[:2], "bw": y[:2], "gw": w}
        return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def problems(rank: int, most_channels: int, most_size: int) -> st.SearchStrategy[Problem]:
    def each(strategy: st.SearchStrategy[int], count: int = rank) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*[strategy] * count)

    return st.builds(
        Problem,
        batch=st.integers(1, 3),
        groups=st.sampled_from([1, 1, 1, 2, 3, 9]),
        channels=st.integers(1, most_channels),
        outputs=st.integers(1, most_channels),
        size=each(st.integers(1, most_size)),
        kernel=each(st.integers(1, 4)),
        strides=each(st.integers(1, 3)),
        dilations=each(st.integers(1, 2)),
        pads=each(st.integers(0, 3), 2 * rank),
    ).filter(lambda problem: min(problem.out) > 0)


PROBLEMS = st.one_of(problems(2, 5, 9), problems(2, 33, 20), problems(1, 6, 60))
NAMED = {
    "3x3": Problem(channels=17, outputs=37, size=(13, 15)),
    "3x3 that fills tiles": Problem(batch=1, channels=16, outputs=28, size=(16, 16)),
    "first layer": Problem(channels=3, outputs=30, size=(21, 19)),
    "one channel": Problem(channels=1, outputs=8, size=(14, 14)),
    "3x3, many tiles": Problem(channels=9, outputs=70, size=(19, 14)),
    "3x3, many tiles, odd paddings": Problem(channels=66, outputs=8, size=(10, 17), pads=(0, 3, 2, 0)),
    "1x1": Problem(channels=70, outputs=33, size=(7, 9), kernel=(1, 1), pads=(0, 0, 0, 0)),
    "1x1 stride 2": Problem(channels=9, outputs=5, size=(8, 7), kernel=(1, 1), strides=(2, 2), pads=(0, 0, 0, 0)),
    "depth in blocks": Problem(batch=1, channels=190, outputs=61, size=(6, 6)),
    "several tiles a panel": Problem(batch=1, channels=200, outputs=80, size=(11, 13)),
    "stride 2": Problem(channels=20, outputs=20, size=(15, 16), strides=(2, 2)),
    "stride 3, 2 dilated": Problem(size=(17, 19), strides=(3, 2), dilations=(2, 2), pads=(1, 2, 3, 0)),
    "valid": Problem(channels=4, outputs=6, size=(12, 12), kernel=(5, 5), pads=(0, 0, 0, 0)),
    "padding beyond the kernel": Problem(size=(5, 5), kernel=(2, 2), pads=(3, 2, 1, 3)),
    "a kernel of 49 taps": Problem(channels=3, outputs=9, size=(16, 16), kernel=(7, 7), strides=(2, 2), pads=(3,) * 4),
    "grouped": Problem(groups=3, channels=5, outputs=7, size=(9, 9)),
    "depthwise": Problem(groups=37, channels=1, outputs=1, size=(14, 15)),
    "depthwise 5x5": Problem(groups=4, channels=1, outputs=1, size=(9, 30), kernel=(5, 5), pads=(2, 2, 2, 2)),
    "depthwise stride 2": Problem(groups=6, channels=1, outputs=1, size=(15, 14), strides=(2, 2)),
    "depthwise in strips": Problem(groups=2, channels=1, outputs=1, size=(90, 70)),
    "depthwise multiplied": Problem(groups=5, channels=1, outputs=3, size=(11, 11)),
    "series": Problem(
        channels=4, outputs=12, size=(150,), kernel=(9,), strides=(1,), dilations=(2,), pads=(8, 8)
    ),
    "depthwise series": Problem(
        groups=8, channels=1, outputs=1, size=(70,), kernel=(15,), strides=(2,), dilations=(1,), pads=(7, 7)
    ),
}  # fmt: skip
named = pytest.mark.parametrize("problem", NAMED.values(), ids=NAMED)
few = settings(max_examples=60, deadline=None, derandomize=True)


def check_all(variant: str, problem: Problem, threads: int = 1) -> None:
    for kind, inputs, outputs in cases(problem):
        check(variant, kind, inputs, outputs, problem.attrs, threads=threads)


def cases(problem: Problem) -> list[tuple[str, list[Array | None], list[Array | None]]]:
    """(kind, inputs, outputs) of the convolution and its gradients, optional inputs present or not."""
    a = problem.arrays()
    found: list[tuple[str, list[Array | None], list[Array | None]]] = [
        ("Conv", [a["x"], a["w"], a["b"]], [garbage(a["gy"].shape)]),
        ("Conv", [a["x"], a["w"]], [garbage(a["gy"].shape)]),
        ("ConvInputGrad", [a["gy"], a["w"]], [garbage(a["x"].shape)]),
    ]
    for fw, bw in ((None, None), (a["fw"], a["bw"]), (None, a["bw"]), (a["fw"], None)):
        inputs = [a["x"], a["gy"], a["weights"], fw, bw]
        found.append(("ConvWeightGrad", inputs, [a["gw"].astype(np.float64)]))
    kept = selected(a["x"], a["fw"] * (a["fw"] > 0), a["x"].shape[1])
    for bw in (None, a["bw"]):
        inputs = [*kept, a["gy"], a["weights"], bw]
        found.append(("ConvWeightGradSparse", inputs, [a["gw"].astype(np.float64)]))
    return found


@variants()
@named
def test_named_convolutions_match_the_reference(variant: str, problem: Problem) -> None:
    check_all(variant, problem)


@variants()
@few
@given(PROBLEMS)
def test_random_convolutions_match_the_reference(variant: str, problem: Problem) -> None:
    assume(problem.groups == 1 or problem.channels <= 8)
    check_all(variant, problem)
    one = replace(problem, groups=problem.groups * problem.channels, channels=1, outputs=1)
    check_all(variant, one)


LARGE = {
    "panels": Problem(batch=2, channels=16, outputs=20, size=(50, 48)),
    "rows": Problem(batch=1, channels=128, outputs=128, size=(6, 6)),
    "strided": Problem(batch=1, channels=64, outputs=64, size=(28, 28), strides=(2, 2)),
    "depthwise": Problem(batch=1, groups=96, channels=1, outputs=1, size=(60, 60)),
}


@variants()
@pytest.mark.parametrize("problem", LARGE.values(), ids=LARGE)
def test_two_threads_match_the_reference_and_repeat_exactly(variant: str, problem: Problem) -> None:
    for kind, inputs, outputs in cases(problem):
        check(variant, kind, inputs, outputs, problem.attrs, threads=2)
        first, *others = (call(variant, kind, inputs, outputs, problem.attrs, threads=2)[0] for _ in range(3))
        for other in others:
            np.testing.assert_array_equal(first, other)
