"""Cases for the kernels of activations, softmax and losses."""

from __future__ import annotations

import numpy as np

from .kernel_cases import CHANNELS, MAP, SAMPLES, Array, Case, Normal, garbage

HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}
SMOOTH_FROM_X = {"Silu": {}, "HardSwish": {}, "Gelu": {"approximate": "none"}}
SMOOTH_FROM_Y = {"Elu": {"alpha": 0.7}, "Sigmoid": {}, "Tanh": {}}


def _out(array: Array) -> Array:
    return garbage(array.shape, array.dtype)


def _masked(normal: Normal) -> list[Case]:
    x = normal(*MAP)

    def case(kind: str, **attrs: float) -> Case:
        return Case(kind, [x], [_out(x), garbage((SAMPLES, -(-x[0].size // 8)), np.uint8)], attrs)

    return [
        case("Clip", min=-1.0, max=0.5),
        case("LeakyRelu", alpha=0.2),
        case("HardSigmoid", **HARD_SIGMOID),
    ]


def _smooth(normal: Normal) -> list[Case]:
    x, gy = normal(*MAP), normal(*MAP)
    forward = [Case(kind, [x], [_out(x)], attrs) for kind, attrs in (SMOOTH_FROM_X | SMOOTH_FROM_Y).items()]
    backward = [
        Case(f"{kind}Grad", [gy, x], [_out(x)], attrs)
        for kind, attrs in (SMOOTH_FROM_X | SMOOTH_FROM_Y).items()
    ]
    return forward + backward


def _prelu(normal: Normal) -> list[Case]:
    x, gy, slope, weights = normal(*MAP), normal(*MAP), normal(CHANNELS), normal(SAMPLES)
    return [
        Case("PRelu", [x, slope], [_out(x)], {}),
        Case("PReluInputGrad", [gy, x, slope], [_out(x)], {}),
        Case("PReluSlopeGrad", [gy, x, weights], [np.zeros_like(slope)], {}),
    ]


def _softmax(normal: Normal) -> list[Case]:
    x, gy = normal(SAMPLES, 4, 128, 32), normal(SAMPLES, 4, 128, 32)
    return [Case("Softmax", [x], [_out(x)], {}), Case("SoftmaxGrad", [gy, x], [_out(x)], {})]


def _losses(normal: Normal) -> list[Case]:
    outputs, targets, logits, weights = normal(*MAP), normal(*MAP), normal(200, 25, 6), normal(200)
    actions, advantages = np.arange(200 * 25).reshape(200, 25) % 6, normal(200, 25)
    moves, log_std = normal(200, 25, 6), normal(6)

    def loss(values: Array) -> list[Array | None]:
        return [garbage((1,), values.dtype), _out(values)]

    gaussian = [logits, log_std, moves, advantages, weights]
    return [
        Case("MeanSquaredError", [outputs, targets, normal(SAMPLES)], loss(outputs), {}),
        Case("CategoricalPolicyGradient", [logits, actions, advantages, weights], loss(logits), {}),
        Case("GaussianPolicyGradient", gaussian, loss(logits), {}),
        Case("GaussianLogStdGrad", gaussian, [np.zeros_like(log_std)], {}),
    ]


MAKERS = (_masked, _smooth, _prelu, _softmax, _losses)
