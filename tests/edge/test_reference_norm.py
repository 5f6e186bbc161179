"""GroupNorm and its gradients against torch autograd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, relative_error, run, selected

torch = pytest.importorskip("torch")
PRECISIONS = [(np.float64, 1e-10), (np.float32, 1e-5)]


@dataclass(frozen=True)
class Problem:
    """A normalisation of `groups` groups of `per_group` channels over maps of `space`, () for rank 2."""

    batch: int = 2
    groups: int = 4
    per_group: int = 2
    space: tuple[int, ...] = (5, 3)

    def arrays(self, dtype: type = np.float64) -> tuple[Array, Array, Array]:
        """Return random x (not centred), scale, bias."""
        rng = np.random.default_rng(0)
        channels = self.groups * self.per_group
        x = 3 * rng.normal(size=(self.batch, channels, *self.space)) + 2
        return (
            x.astype(dtype),
            rng.normal(size=channels).astype(dtype),
            rng.normal(size=channels).astype(dtype),
        )


PROBLEMS = st.builds(
    Problem,
    batch=st.integers(1, 3),
    groups=st.integers(1, 4),
    per_group=st.integers(2, 4),
    space=st.one_of(st.just(()), st.tuples(st.integers(1, 6), st.integers(1, 6))),
)
few = settings(max_examples=40, deadline=None, derandomize=True)


def check(problem: Problem, dtype: type, tolerance: float) -> None:
    x, scale, bias = problem.arrays(dtype)
    y, x_hat, inv_std = (
        garbage(x.shape, dtype),
        garbage(x.shape, dtype),
        garbage((len(x), problem.groups), dtype),
    )
    run("GroupNorm", [x, scale, bias], [y, x_hat, inv_std], groups=problem.groups, eps=1e-5)
    tx, ts, tb = (torch.tensor(a.astype(np.float64), requires_grad=True) for a in (x, scale, bias))
    expected = torch.nn.functional.group_norm(tx, problem.groups, ts, tb, 1e-5)
    assert relative_error(y, expected.detach().numpy()) < tolerance
    grouped = x.astype(np.float64).reshape(len(x), problem.groups, -1)
    assert relative_error(inv_std, 1 / np.sqrt(grouped.var(-1) + 1e-5)) < tolerance
    gy = np.random.default_rng(1).normal(size=x.shape).astype(dtype)
    expected.backward(torch.tensor(gy.astype(np.float64)))
    gx = run(
        "GroupNormInputGrad", [gy, x_hat, inv_std, scale], [garbage(x.shape, dtype)], groups=problem.groups
    )
    # two elements a group make x_hat = +-1 and the gradient a small difference of large terms
    terms = float(np.abs(inv_std).max() * np.abs(gy).max() * np.abs(scale).max())
    assert np.abs(gx - tx.grad.numpy()).max() < tolerance * terms
    ones = np.ones(len(x), dtype)
    assert (
        relative_error(run("ScaleGrad", [gy, x_hat, ones], [np.zeros_like(scale)], axis=1), ts.grad)
        < tolerance
    )
    assert relative_error(run("BiasGrad", [gy, ones], [np.zeros_like(bias)], axis=1), tb.grad) < tolerance


@few
@given(PROBLEMS)
def test_group_norm_and_its_gradients_match_torch(problem: Problem) -> None:
    check(problem, np.float64, 1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_groups_longer_than_the_buffer(dtype: type, tolerance: float) -> None:
    check(Problem(groups=2, per_group=3, space=(37, 29)), dtype, tolerance)


@few
@given(PROBLEMS, st.booleans(), st.booleans())
def test_scale_gradient_is_weighed_per_sample(problem: Problem, forward: bool, backward: bool) -> None:
    rng = np.random.default_rng(3)
    x_hat, scale, _ = problem.arrays()
    gy, weights = rng.normal(size=x_hat.shape), rng.uniform(size=problem.batch)
    fw = rng.normal(size=x_hat.shape[:2]) * (rng.uniform(size=x_hat.shape[:2]) < 0.6) if forward else None
    bw = rng.normal(size=x_hat.shape[:2]) if backward else None
    expected = scale.copy()  # added to what the accumulator holds
    for n in range(problem.batch):
        for c in range(scale.size):
            factor = weights[n] * (1 if fw is None else fw[n, c]) * (1 if bw is None else bw[n, c])
            expected[c] += factor * (gy[n, c] * x_hat[n, c]).sum()
    gs = run("ScaleGrad", [gy, x_hat, weights, fw, bw], [scale.copy()], axis=1)
    assert relative_error(gs, expected) < 1e-10
    if fw is not None:
        kept = [*selected(x_hat, fw, scale.size), gy, weights, bw]
        assert relative_error(run("ScaleGradSparse", kept, [scale.copy()]), expected) < 1e-10


def test_the_input_gradient_is_the_slope_of_the_output() -> None:
    x, scale, bias = Problem().arrays()
    rng = np.random.default_rng(4)
    gy, direction = rng.normal(size=x.shape), rng.normal(size=x.shape)

    def forward(at: Array) -> list[Array]:
        outputs = [garbage(x.shape), garbage(x.shape), garbage((2, 4))]
        run("GroupNorm", [at, scale, bias], outputs, groups=4, eps=1e-5)
        return outputs

    slope = np.vdot(gy, forward(x + 1e-5 * direction)[0] - forward(x - 1e-5 * direction)[0]) / 2e-5
    _, x_hat, inv_std = forward(x)
    gx = run("GroupNormInputGrad", [gy, x_hat, inv_std, scale], [garbage(x.shape)], groups=4)
    assert np.vdot(gx, direction) == pytest.approx(slope, rel=1e-7)


def test_a_constant_group_is_normalised_to_zero() -> None:
    x = np.full((1, 4, 3, 3), 7.0)
    y = run("GroupNorm", [x, np.ones(4), np.arange(4.0)], [garbage(x.shape), None, None], groups=2, eps=1e-5)
    np.testing.assert_array_equal(y[0, :, 0, 0], np.arange(4.0))


def test_a_norm_nobody_reads_is_refused() -> None:
    x = np.ones((1, 4, 3, 3))
    with pytest.raises(ValueError, match="neither y nor x_hat"):
        run("GroupNorm", [x, np.ones(4), np.ones(4)], [None, None, garbage((1, 2))], groups=2, eps=1e-5)
