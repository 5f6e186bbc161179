"""Convolution and its gradients against torch autograd, sample by sample where attention weighs them."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference import KERNELS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, relative_error, run, selected, workspace_for

torch = pytest.importorskip("torch")


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
    def rank(self) -> int:
        return len(self.size)

    @property
    def attrs(self) -> dict[str, Any]:
        lists = {name: list(getattr(self, name)) for name in ("strides", "dilations", "pads")}
        return {**lists, "groups": self.groups}

    @property
    def fits(self) -> bool:
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        padded = (self.size[i] + self.pads[i] + self.pads[i + self.rank] for i in range(self.rank))
        return all(size >= least for size, least in zip(padded, reach, strict=True))

    def arrays(self, dtype: type = np.float64) -> tuple[Array, Array, Array]:
        """Return random x, w, b."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.batch, self.groups * self.channels, *self.size))
        w = rng.normal(size=(self.groups * self.outputs, self.channels, *self.kernel))
        return x.astype(dtype), w.astype(dtype), rng.normal(size=w.shape[0]).astype(dtype)

    def torch(self, x: Any, w: Any, b: Any = None) -> Any:
        """The same convolution in torch; asymmetric padding as an explicit one."""
        ends = [self.pads[i :: self.rank] for i in reversed(range(self.rank))]
        padded = torch.nn.functional.pad(x, tuple(pad for both in ends for pad in both))
        conv = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d}[self.rank]
        return conv(padded, w, b, self.strides, 0, self.dilations, self.groups)

    def per_sample_weight_grads(self, x: Array, w: Array, gy: Array) -> Array:
        """Gradient of every sample for itself, (N, O, I/groups, [kh,] kw)."""
        grads = []
        for sample, gradient in zip(torch.tensor(x), torch.tensor(gy), strict=True):
            weight = torch.tensor(w, requires_grad=True)
            self.torch(sample[None], weight).backward(gradient[None])
            grads.append(weight.grad.numpy())
        return np.stack(grads)


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
PLANES = st.builds(
    Problem,
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 3),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    kernel=pair,
    strides=pair,
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
)
single = st.tuples(st.integers(1, 3))
SERIES = st.builds(
    Problem,
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 3),
    size=st.tuples(st.integers(1, 12)),
    kernel=single,
    strides=single,
    dilations=single,
    pads=st.tuples(*[st.integers(0, 3)] * 2),
)
PROBLEMS = st.one_of(PLANES, SERIES)
SPLIT_ROWS = Problem(channels=12, outputs=4, size=(4, 61), pads=(1, 2, 0, 1))
MANY_STRIPS = Problem(channels=8, outputs=40, size=(40, 9), strides=(1, 2))
DEPTHWISE = Problem(groups=6, channels=1, outputs=2)
POINTWISE = Problem(groups=2, channels=3, kernel=(1, 1), pads=(0, 0, 0, 0))
CHUNKS_OF_GROUPS = Problem(groups=41, channels=1, outputs=1, size=(14, 14))
PAIRS_IN_GROUPS = Problem(groups=13, channels=2, outputs=3, size=(13, 17), strides=(2, 1))
LONG_SERIES = Problem(
    groups=2, channels=4, outputs=5, size=(700,), kernel=(9,), strides=(1,), dilations=(2,), pads=(3, 8)
)
NAMED = [SPLIT_ROWS, MANY_STRIPS, DEPTHWISE, POINTWISE, CHUNKS_OF_GROUPS, PAIRS_IN_GROUPS, LONG_SERIES]
few = settings(max_examples=40, deadline=None, derandomize=True)


def check_forward_and_input_gradient(problem: Problem, dtype: type, tolerance: float) -> None:
    x, w, b = problem.arrays(dtype)
    tx, tw, tb = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, w, b))
    expected = problem.torch(tx, tw, tb)
    y = run("Conv", [x, w, b], [garbage(tuple(expected.shape), dtype)], **problem.attrs)
    assert relative_error(y, expected.detach().numpy()) < tolerance
    gy = np.random.default_rng(1).normal(size=y.shape).astype(dtype)
    expected.backward(torch.tensor(gy.astype(np.float64)))
    gx = run("ConvInputGrad", [gy, w], [garbage(x.shape, dtype)], **problem.attrs)
    assert relative_error(gx, tx.grad.numpy()) < tolerance


def check_parameter_gradients(problem: Problem, dtype: type, tolerance: float) -> None:
    """Also: channels kept sparsely give the same as dense ones with fw, and results are added."""
    rng = np.random.default_rng(2)
    x, w, _ = problem.arrays(dtype)
    y_shape = tuple(problem.torch(torch.tensor(x), torch.tensor(w)).shape)
    gy, weights = rng.normal(size=y_shape).astype(dtype), rng.uniform(size=problem.batch).astype(dtype)
    fw = rng.normal(size=x.shape[:2]) * (rng.uniform(size=x.shape[:2]) < 0.7)
    fw, bw = fw.astype(dtype), rng.normal(size=y_shape[:2]).astype(dtype)
    grads = problem.per_sample_weight_grads(*(a.astype(np.float64) for a in (x, w, gy)))
    start = rng.normal(size=w.shape).astype(dtype)
    for forward, backward in ((fw, bw), (None, bw), (fw, None), (None, None)):
        factors = weights.reshape(-1, *[1] * w.ndim) * gamma(problem, forward, backward)
        expected = start + (factors * grads).sum(0)
        gw = run("ConvWeightGrad", [x, gy, weights, forward, backward], [start.copy()], **problem.attrs)
        assert relative_error(gw, expected) < tolerance
        if forward is not None:
            kept = [*selected(x, forward, x.shape[1]), gy, weights, backward]
            assert (
                relative_error(run("ConvWeightGradSparse", kept, [start.copy()], **problem.attrs), gw)
                < tolerance
            )
        factor = weights[:, None] * (1 if backward is None else backward)
        gb = run("BiasGrad", [gy, weights, backward], [start.reshape(len(w), -1)[:, 0].copy()], axis=1)
        total = gy.reshape(*gy.shape[:2], -1).sum(2)
        assert relative_error(gb, start.reshape(len(w), -1)[:, 0] + (factor * total).sum(0)) < tolerance


def gamma(problem: Problem, fw: Array | None, bw: Array | None) -> Array:
    """bw[n, o] * fw[n, floor(o*G/O)*(I/G) + i'], written out index by index."""
    outputs = problem.groups * problem.outputs
    result = np.ones((problem.batch, outputs, problem.channels, *[1] * problem.rank))
    for o in range(outputs):
        for i in range(problem.channels):
            channel = (o * problem.groups // outputs) * problem.channels + i
            factor = (1 if fw is None else fw[:, channel]) * (1 if bw is None else bw[:, o])
            result[:, o, i] = np.reshape(factor, (-1, *[1] * problem.rank))
    return result


@few
@given(PROBLEMS)
def test_convolution_matches_torch(problem: Problem) -> None:
    assume(problem.fits)
    check_forward_and_input_gradient(problem, np.float64, 1e-10)


@few
@given(PROBLEMS)
def test_parameter_gradients_match_torch_sample_by_sample(problem: Problem) -> None:
    assume(problem.fits)
    check_parameter_gradients(problem, np.float64, 1e-10)


@pytest.mark.parametrize("problem", NAMED)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_strips_groups_and_single_taps(problem: Problem, dtype: type, tolerance: float) -> None:
    check_forward_and_input_gradient(problem, dtype, tolerance)
    check_parameter_gradients(problem, dtype, tolerance)


def test_a_convolution_without_bias() -> None:
    problem = Problem()
    x, w, b = problem.arrays()
    plain = run("Conv", [x, w], [garbage((2, 3, 6, 5))], **problem.attrs)
    with_bias = run("Conv", [x, w, b], [garbage((2, 3, 6, 5))], **problem.attrs)
    np.testing.assert_allclose(with_bias - plain, np.broadcast_to(b[:, None, None], plain.shape), atol=1e-14)


def test_the_input_gradient_is_the_slope_of_the_output() -> None:
    problem = Problem(strides=(2, 1), groups=2)
    x, w, _ = problem.arrays()
    shape = tuple(problem.torch(torch.tensor(x), torch.tensor(w)).shape)
    rng = np.random.default_rng(4)
    gy, direction = rng.normal(size=shape), rng.normal(size=x.shape)
    ahead, behind = (
        run("Conv", [x + s * 1e-4 * direction, w], [garbage(shape)], **problem.attrs) for s in (1, -1)
    )
    gx = run("ConvInputGrad", [gy, w], [garbage(x.shape)], **problem.attrs)
    assert np.vdot(gx, direction) == pytest.approx(np.vdot(gy, ahead - behind) / 2e-4, rel=1e-8)


def test_sample_weights_that_sum_over_micro_batches_give_the_mean() -> None:
    problem = Problem(batch=6)
    x, w, _ = problem.arrays()
    gy = np.random.default_rng(5).normal(size=(6, 3, 6, 5))
    weights = np.full(6, 1 / 6)
    whole = run("ConvWeightGrad", [x, gy, weights], [np.zeros_like(w)], **problem.attrs)
    parts = np.zeros_like(w)
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        run("ConvWeightGrad", [x[part], gy[part], weights[part]], [parts], **problem.attrs)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    mean = problem.per_sample_weight_grads(x, w, gy).mean(0)
    np.testing.assert_allclose(whole, mean, atol=1e-12)


@pytest.mark.parametrize("kind", ["Conv", "ConvInputGrad", "ConvWeightGrad"])
@pytest.mark.parametrize("space", [(40, 40), (1600,)], ids=["planes", "series"])
def test_groups_done_together_hide_no_temporary(kind: str, space: tuple[int, ...]) -> None:
    rank = len(space)
    problem = Problem(
        groups=64, channels=1, outputs=1, size=space, kernel=(3,) * rank,
        strides=(1,) * rank, dilations=(1,) * rank, pads=(1,) * (2 * rank),
    )  # fmt: skip
    x, w, b = problem.arrays(np.float32)
    gy, gammas = x[::-1].copy(), np.ones(x.shape[:2], np.float32)
    inputs = {"Conv": [x, w, b], "ConvInputGrad": [gy, w], "ConvWeightGrad": [x, gy, b[:2], gammas, gammas]}
    outputs = [np.zeros_like(w) if kind == "ConvWeightGrad" else np.empty_like(x)]
    workspace = workspace_for(kind, inputs[kind], outputs, problem.attrs)
    for _ in range(2):  # the first call may fill caches of the interpreter
        tracemalloc.start()
        KERNELS[kind].run(inputs[kind], outputs, problem.attrs, workspace)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8192 < x[0].nbytes / 8
