"""Sums, products, scaling and means against NumPy's own broadcasting and torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, run

torch = pytest.importorskip("torch")

few = settings(max_examples=60, deadline=None, derandomize=True)
FUNCTIONS = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul}


@st.composite
def operands(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of two batched values whose other axes are equal or 1."""
    batch = draw(st.integers(1, 3))
    axes = draw(
        st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["both", "a", "b"])), min_size=1, max_size=3)
    )
    a = (batch, *(1 if who == "b" else size for size, who in axes))
    b = (batch, *(1 if who == "a" else size for size, who in axes))
    return a, b


@few
@given(operands(), st.sampled_from(list(FUNCTIONS)), st.sampled_from([np.float32, np.float64]))
def test_axes_of_length_one_are_repeated(shapes: tuple[tuple[int, ...], ...], kind: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    expected = FUNCTIONS[kind](torch.tensor(a), torch.tensor(b)).numpy()
    y = run(kind, [a, b], [garbage(expected.shape, dtype)])
    np.testing.assert_array_equal(y, expected)


@few
@given(operands(), st.sampled_from(list(FUNCTIONS)))
def test_the_first_operand_may_be_overwritten(shapes: tuple[tuple[int, ...], ...], kind: str) -> None:
    rng = np.random.default_rng(1)
    shape = np.broadcast_shapes(*shapes)
    memory = garbage((int(np.prod(shape)),))
    a = memory[: int(np.prod(shapes[0]))].reshape(shapes[0])
    a[...], b = rng.normal(size=shapes[0]), rng.normal(size=shapes[1])
    expected = FUNCTIONS[kind](torch.tensor(a), torch.tensor(b)).numpy()
    np.testing.assert_array_equal(run(kind, [a, b], [memory.reshape(shape)]), expected)


@few
@given(operands())
def test_gradients_of_sums_and_products_are_those_of_autograd(shapes: tuple[tuple[int, ...], ...]) -> None:
    rng = np.random.default_rng(2)
    a, b = (torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes)
    gy = rng.normal(size=np.broadcast_shapes(*shapes))
    for own, other in ((a, b), (b, a)):
        (expected,) = torch.autograd.grad(a * b, own, torch.tensor(gy), retain_graph=True)
        inputs = [gy, other.detach().numpy()]
        found = run("MulGrad", inputs, [garbage(tuple(own.shape))])
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-13)
        (expected,) = torch.autograd.grad(a + b, own, torch.tensor(gy), retain_graph=True)
        found = run("SumTo", [gy], [garbage(tuple(own.shape))])
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-13)


@pytest.mark.parametrize("narrow", [(2, 1, 1, 1), (2, 300, 1, 1), (2, 1, 90, 1), (2, 300, 1, 70)])
def test_products_are_summed_over_many_tiles(narrow: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    gy, other = rng.normal(size=(2, 300, 90, 70)), rng.normal(size=(2, 300, 90, 70))
    axes = tuple(axis for axis, length in enumerate(narrow) if length == 1)
    expected = (gy * other).sum(axis=axes, keepdims=True)
    memory = gy.copy().reshape(-1)
    found = run("MulGrad", [gy, other], [garbage(narrow)])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    in_place = memory[: expected.size].reshape(narrow)
    np.testing.assert_array_equal(run("MulGrad", [memory.reshape(gy.shape), other], [in_place]), found)


@pytest.mark.parametrize(("factor", "offset"), [(2.5, 0.0), (-1.0, 1.0), (0.0, 3.0)])
def test_scaling_multiplies_and_shifts(factor: float, offset: float) -> None:
    x = np.random.default_rng(4).normal(size=(3, 4, 5))
    y = run("Scale", [x], [garbage(x.shape)], factor=factor, offset=offset)
    np.testing.assert_allclose(y, factor * x + offset, rtol=1e-15)


@pytest.mark.parametrize("axes", [[1], [2], [2, 3], [1, 3], [1, 2, 3]])
@pytest.mark.parametrize("keep", [True, False])
def test_means_and_their_gradients(axes: list[int], keep: bool) -> None:
    rng = np.random.default_rng(5)
    x = torch.tensor(rng.normal(size=(3, 4, 5, 6)), requires_grad=True)
    y = x.mean(axes, keepdim=keep)
    gy = torch.tensor(rng.normal(size=tuple(y.shape)))
    y.backward(gy)
    attrs = {"axes": axes, "keepdims": keep}
    found = run("Mean", [x.detach().numpy()], [garbage(tuple(y.shape))], **attrs)
    np.testing.assert_allclose(found, y.detach().numpy(), atol=1e-14)
    gradient = run("MeanGrad", [gy.numpy()], [garbage(tuple(x.shape))], **attrs)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-15)


def test_a_mean_over_samples_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'axes' must list axes from 1 to 2, got \[0\]"):
        run("Mean", [np.zeros((2, 3, 4))], [garbage((1, 3, 4))], axes=[0], keepdims=True)
