"""Expansions of activations in stock onnxruntime against their kernels, forward and backward, over random shapes.

The kernels are checked against torch in tests/edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.program import Op, Program, Tensor
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export.onnx_graph import build_graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .ort import run_model

SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3)
HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}
MASKED: dict[str, tuple[str, dict[str, Any], tuple[float, float]]] = {
    "relu": ("Relu", {}, (1.0, 0.0)),
    "relu6": ("Clip", {"min": 0.0, "max": 6.0}, (1.0, 0.0)),
    "at-least": ("Clip", {"min": -0.5, "max": None}, (1.0, 0.0)),
    "at-most": ("Clip", {"min": None, "max": 3.0}, (1.0, 0.0)),
    "leaky-relu": ("LeakyRelu", {"alpha": 0.2}, (1.0, 0.2)),
    "hard-sigmoid": ("HardSigmoid", HARD_SIGMOID, (1 / 6, 0.0)),
}
SMOOTH: dict[str, tuple[str, dict[str, Any], str]] = {
    "elu": ("Elu", {"alpha": 0.7}, "y"),
    "sigmoid": ("Sigmoid", {}, "y"),
    "tanh": ("Tanh", {}, "y"),
    "silu": ("Silu", {}, "x"),
    "hard-swish": ("HardSwish", {}, "x"),
    "gelu": ("Gelu", {"approximate": "none"}, "x"),
    "gelu-tanh": ("Gelu", {"approximate": "tanh"}, "x"),
    "softmax": ("Softmax", {}, "y"),
}
RANDOM = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def program_of(shape: tuple[int, ...], ops: list[Op], *more: Tensor) -> Program:
    """x and gy to y and gx."""
    batched = ("N", *shape)
    tensors = [Tensor(name, batched, role=role) for name, role in (("x", "input"), ("gy", "input"))]
    tensors += [Tensor(name, batched) for name in ("y", "gx")]
    every = {tensor.name: tensor for tensor in (*tensors, *more)}
    return Program(every, {"forward": tuple(ops)}, (), {}, {}, 0)


def values(shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Numbers of all sizes, some exactly where the pieces of an activation meet."""
    rng = np.random.default_rng(seed)
    x = 3 * rng.normal(size=(3, *shape))
    edges = rng.choice([-3.0, -0.5, 0.0, 3.0, 6.0, 40.0, -40.0], x.shape)
    x = np.where(rng.random(x.shape) < 0.3, edges, x)
    return {"x": x.astype(np.float32), "gy": rng.normal(size=x.shape).astype(np.float32)}


def both(program: Program, feeds: dict[str, np.ndarray], names: list[str]) -> list[tuple[np.ndarray, ...]]:
    model = build_graph(program, {}, {name: name for name in names}, adjustable=True)
    by_ort, found = run_model(model, feeds), interpret(program, feeds, names)
    return [(by_ort[name], found[name]) for name in names]


@pytest.mark.parametrize("name", MASKED)
@RANDOM
@given(shape=SHAPES, seed=st.integers(0, 100))
def test_masked_activations(name, shape, seed):
    kind, attrs, (inside, outside) = MASKED[name]
    slopes = {"inside": inside, "outside": outside}
    ops = [
        Op(kind, ("x",), ("y", "mask"), attrs=attrs),
        Op("MaskGrad", ("gy", "mask"), ("gx",), attrs=slopes),
    ]
    program = program_of(tuple(shape), ops, Tensor("mask", ("N", *shape), "bit1"))
    (y, expected), (gx, expected_gx) = both(program, values(tuple(shape), seed), ["y", "gx"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gx, expected_gx)  # the masks agree in every bit


@pytest.mark.parametrize("name", SMOOTH)
@RANDOM
@given(shape=SHAPES, seed=st.integers(0, 100))
def test_smooth_activations(name, shape, seed):
    kind, attrs, kept = SMOOTH[name]
    ops = [
        Op(kind, ("x",), ("y",), attrs=attrs),
        Op(f"{kind}Grad", ("gy", kept), ("gx",), attrs=attrs),
    ]
    for got, expected in both(program_of(tuple(shape), ops), values(tuple(shape), seed), ["y", "gx"]):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
@RANDOM
@given(shape=SHAPES, seed=st.integers(0, 100))
def test_prelu(shared, shape, seed):
    slopes = (1 if shared else shape[0],)
    ops = [
        Op("PRelu", ("x", "slope"), ("y",)),
        Op("PReluInputGrad", ("gy", "x", "slope"), ("gx",)),
        Op("PReluSlopeGrad", ("gy", "x", "sample_weight"), ("gs",)),
    ]
    program = program_of(
        tuple(shape), ops, Tensor("slope", slopes, role="param"), Tensor("gs", slopes),
        Tensor("sample_weight", ("N",), role="input"),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    feeds = values(tuple(shape), seed) | {
        "slope": rng.normal(size=slopes).astype(np.float32),
        "sample_weight": rng.uniform(size=3).astype(np.float32),
    }
    for got, expected in both(program, feeds, ["y", "gx", "gs"]):
        largest = max(
            1.0, float(np.abs(expected).max(initial=0))
        )  # a slope's gradient sums with cancellation
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * largest)
