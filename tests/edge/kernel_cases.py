"""Running single kernels in tests, and a case for each at a size where a hidden temporary shows.

`kernel_table` has the cases of all families.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from edge_adapt.edge.reference import KERNELS
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
CONV = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "groups": 1}
POOL = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
NORM = {"groups": 8, "eps": 1e-5}
GARBAGE = 0xFF  # as bytes of a float: NaN


def garbage(shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> Array:
    """Memory that holds NaN (integers: all bits set), as the arena does before an output is written."""
    array = np.empty(shape, dtype)
    array.view(np.uint8).fill(GARBAGE)
    return array


def workspace_for(
    kind: str, inputs: Sequence[Any], outputs: Sequence[Any], attrs: Mapping[str, Any]
) -> Array:
    """Exactly the bytes the kernel asks for, 16-byte aligned, filled with garbage."""
    dtype = next(a.dtype for a in (*outputs, *inputs) if a is not None and a.dtype.kind == "f")
    shapes = [[None if a is None else a.shape for a in arrays] for arrays in (inputs, outputs)]
    size = KERNELS[kind].workspace_bytes(shapes[0], shapes[1], attrs, dtype.itemsize)
    memory = np.full(size + 16, GARBAGE, np.uint8)
    start = -memory.ctypes.data % 16
    return memory[start : start + size]


def run(kind: str, inputs: Sequence[Any], outputs: Sequence[Any], **attrs: Any) -> Any:
    """Run one kernel and return its first output."""
    KERNELS[kind].run(inputs, outputs, attrs, workspace_for(kind, inputs, outputs, attrs))
    return outputs[0]


def relative_error(actual: Array, expected: Array) -> float:
    """Largest difference relative to the largest expected value."""
    difference = np.abs(np.asarray(actual, np.float64) - np.asarray(expected, np.float64)).max(initial=0)
    return float(difference / max(np.abs(np.asarray(expected, np.float64)).max(initial=0), 1e-30))


@dataclass
class Case:
    """One call of a kernel; `outputs` hold garbage, accumulators zero."""

    kind: str
    inputs: list[Array | None]
    outputs: list[Array | None]
    attrs: dict[str, Any]

    def copy(self) -> Case:
        """The same call on fresh arrays."""
        fresh = [[None if a is None else a.copy() for a in arrays] for arrays in (self.inputs, self.outputs)]
        return Case(self.kind, fresh[0], fresh[1], self.attrs)


SAMPLES, CHANNELS, SIDE = 3, 32, 23
MAP = (SAMPLES, CHANNELS, SIDE, SIDE)  # one sample is 66 KiB in float32

Normal = Callable[..., Array]


def _like(array: Array) -> Array:
    return garbage(array.shape, array.dtype)


def _conv(normal: Normal) -> list[Case]:
    x, gy, w, b = normal(*MAP), normal(*MAP), normal(CHANNELS, CHANNELS, 3, 3), normal(CHANNELS)
    weights, fw, bw = normal(SAMPLES), normal(SAMPLES, CHANNELS), normal(SAMPLES, CHANNELS)
    return [
        Case("Conv", [x, w, b], [_like(x)], CONV),
        Case("ConvInputGrad", [gy, w], [_like(x)], CONV),
        Case("ConvWeightGrad", [x, gy, weights, fw, bw], [np.zeros_like(w)], CONV),
    ]


def _fc(normal: Normal) -> list[Case]:
    x, gy, w, b = normal(16, 1024), normal(16, 128), normal(128, 1024), normal(128)
    weights, fw, bw = normal(16), normal(16, 1024), normal(16, 128)
    return [
        Case("Fc", [x, w, b], [_like(gy)], {}),
        Case("FcInputGrad", [gy, w], [_like(x)], {}),
        Case("FcWeightGrad", [x, gy, weights, fw, bw], [np.zeros_like(w)], {}),
    ]


def _norm(normal: Normal) -> list[Case]:
    x, gy, scale, bias = normal(*MAP), normal(*MAP), normal(CHANNELS), normal(CHANNELS)
    inv_std = np.abs(normal(SAMPLES, 8))
    weights, fw, bw = normal(SAMPLES), normal(SAMPLES, CHANNELS), normal(SAMPLES, CHANNELS)
    return [
        Case("GroupNorm", [x, scale, bias], [_like(x), _like(x), _like(inv_std)], NORM),
        Case("GroupNormInputGrad", [gy, x, inv_std, scale], [_like(x)], NORM),
        Case("ScaleGrad", [gy, x, weights, fw, bw], [np.zeros_like(scale)], {"axis": 1}),
        Case("BiasGrad", [gy, weights, bw], [np.zeros_like(scale)], {"axis": 1}),
    ]


def _pointwise(normal: Normal) -> list[Case]:
    x, gy = normal(*MAP), normal(*MAP)
    mask = garbage((SAMPLES, -(-x[0].size // 8)), np.uint8)
    alpha = np.abs(normal(5, 9))
    bits = np.random.default_rng(1).integers(0, 256, mask.shape, dtype=np.uint8)
    return [
        Case("Relu", [x], [_like(x), mask], {}),
        Case("MaskGrad", [gy, bits], [_like(x)], {"inside": 0.5, "outside": 0.1}),
        Case("Add", [x, gy], [_like(x)], {}),
        Case("Zero", [], [_like(x)], {}),
        Case("Reshape", [x], [x.reshape(SAMPLES, -1)], {}),
        Case("SgdUpdate", [x, gy, alpha], [_like(x)], {"step": 2, "layer_index": 7}),
    ]


def _pool(normal: Normal) -> list[Case]:
    x, pooled = normal(*MAP), normal(SAMPLES, CHANNELS, SIDE // 2, SIDE // 2)
    argmax = garbage((SAMPLES, -(-pooled[0].size // 4)), np.uint8)
    places = np.random.default_rng(2).integers(0, 256, argmax.shape, dtype=np.uint8)
    return [
        Case("MaxPool", [x], [_like(pooled), argmax], POOL),
        Case("MaxPoolGrad", [pooled, places], [_like(x)], POOL),
    ]


def _loss(normal: Normal) -> list[Case]:
    logits, labels, mask = normal(200, 100), np.arange(200) % 99, np.ones(100, normal(1).dtype)
    mask[99] = 0
    outputs: list[Array | None] = [garbage((1,), logits.dtype), _like(logits)]
    return [Case("SoftmaxCrossEntropy", [logits, labels, normal(200), mask], outputs, {})]


def _attention(normal: Normal) -> list[Case]:
    x, w1, w2, b1, b2 = normal(*MAP), normal(32, 32), normal(32, 32), normal(32), normal(32)
    attrs = {"rho": 0.3, "cap": 20, "normalize": "rms", "axis": 1}
    return [Case("ChannelAttention", [x, w1, b1, w2, b2], [garbage((SAMPLES, 32), x.dtype)], attrs)]


def _sparse(normal: Normal) -> list[Case]:
    x, gy, weights, bw = normal(*MAP), normal(*MAP), normal(SAMPLES), normal(SAMPLES, CHANNELS)
    gamma = normal(SAMPLES, CHANNELS)
    gamma[:, ::2] = 0
    kept, index = selected(x, gamma, 16)
    fc_x, fc_gy, fc_gamma = normal(16, 1024), normal(16, 128), normal(16, 1024)
    fc_gamma[:, ::2] = 0
    fc_kept, fc_index = selected(fc_x, fc_gamma, 512)
    fc_bw = normal(16, 128)
    return [
        Case("SelectChannels", [x, gamma], [_like(kept), _like(index)], {}),
        Case(
            "ConvWeightGradSparse", [kept, index, gy, weights, bw], [np.zeros((32, 32, 3, 3), x.dtype)], CONV
        ),
        Case(
            "FcWeightGradSparse",
            [fc_kept, fc_index, fc_gy, normal(16), fc_bw],
            [np.zeros((128, 1024), x.dtype)],
            {},
        ),
        Case("ScaleGradSparse", [kept, index, gy, weights, bw], [np.zeros(32, x.dtype)], {}),
    ]


def quantised(normal: Normal, bits: int = 8) -> list[Case]:
    """Maps whose levels are exact, in 8 or 16 bits."""
    most, dtype = 2**bits - 1, f"uint{bits}"
    levels = np.clip(np.round(most * (normal(*MAP) / 6 + 0.5)), 0, most)
    levels[:, :, 0, :2] = 0, most
    x = levels / 4 - 16
    ranges = garbage((SAMPLES, CHANNELS, 2), x.dtype)
    return [
        Case("Quantise", [x], [garbage(MAP, dtype), ranges], {}),
        Case("Dequantise", [levels.astype(dtype), normal(*ranges.shape)], [_like(x)], {}),
    ]


def selected(x: Array, gamma: Array, cap: int) -> tuple[Array, Array]:
    """Return SelectChannels of x with `cap` slots."""
    kept, index = garbage((x.shape[0], cap, *x.shape[2:]), x.dtype), garbage((x.shape[0], cap), np.int32)
    run("SelectChannels", [x, gamma], [kept, index])
    return kept, index


MAKERS = (_conv, _fc, _norm, _pointwise, _pool, _loss, _attention, _sparse, quantised)
