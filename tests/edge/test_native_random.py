"""Native kernels other than convolutions against the reference kernels, over random shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kernel_cases import Array, garbage, run, selected
from .native_calls import check, normal, packed, variants

few = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.integers(1, 40)
optional = st.booleans()
spaces = st.one_of(
    st.just(()), st.tuples(st.integers(1, 70)), st.tuples(st.integers(1, 12), st.integers(1, 12))
)
SEEDS = st.integers(0, 2**16)


@variants()
@few
@given(
    batch=st.integers(1, 9), places=st.integers(0, 17), inputs=st.integers(1, 150), outputs=sizes,
    fw=optional, bw=optional, threads=st.integers(1, 3),
)  # fmt: skip
def test_fully_connected(
    variant: str, batch: int, places: int, inputs: int, outputs: int, fw: bool, bw: bool, threads: int
) -> None:
    between = (places,) if places else ()
    x, gy = normal(0, batch, *between, inputs), normal(1, batch, *between, outputs)
    w, b, weights = normal(2, outputs, inputs), normal(3, outputs), normal(4, batch)
    forward = normal(5, batch, inputs) if fw else None
    backward = normal(6, batch, outputs) if bw else None
    check(variant, "Fc", [x, w, b if fw else None], [garbage(gy.shape)], {}, threads=threads)
    check(variant, "FcInputGrad", [gy, w], [garbage(x.shape)], {}, threads=threads)
    gw = [w.astype(np.float64)]
    check(variant, "FcWeightGrad", [x, gy, weights, forward, backward], gw, {}, threads=threads)
    if not places:
        gamma = normal(7, batch, inputs) * (normal(8, batch, inputs) > 0)
        kept = selected(x, gamma, inputs)
        check(variant, "FcWeightGradSparse", [*kept, gy, weights, backward], gw, {}, threads=threads)


@variants()
def test_fully_connected_sums_over_more_samples_than_fit_at_once(variant: str) -> None:
    x, gy, weights = normal(0, 70, 45), normal(1, 70, 9), normal(2, 70)
    check(variant, "FcWeightGrad", [x, gy, weights], [np.zeros((9, 45))], {})


@variants()
@few
@given(
    batch=st.integers(1, 3), groups=st.integers(1, 4), channels=st.integers(1, 5), space=spaces,
    threads=st.integers(1, 2),
)  # fmt: skip
def test_group_norm(
    variant: str, batch: int, groups: int, channels: int, space: tuple[int, ...], threads: int
) -> None:
    x = 3 + normal(0, batch, groups * channels, *space)
    scale, bias, attrs = normal(1, x.shape[1]), normal(2, x.shape[1]), {"groups": groups, "eps": 1e-3}
    outputs = [garbage(x.shape), garbage(x.shape), garbage((batch, groups))]
    check(variant, "GroupNorm", [x, scale, bias], outputs, attrs, 2e-5, threads)
    gy, x_hat, inv_std = normal(3, *x.shape), normal(4, *x.shape), np.abs(normal(5, batch, groups))
    check(
        variant, "GroupNormInputGrad", [gy, x_hat, inv_std, scale], [garbage(x.shape)],
        {"groups": groups}, 5e-6, threads,
    )  # fmt: skip


@variants()
def test_group_norm_of_a_long_group_keeps_its_precision(variant: str) -> None:
    x = 100 + normal(0, 1, 8, 90, 90)
    outputs = [garbage(x.shape), None, garbage((1, 1))]
    check(variant, "GroupNorm", [x, normal(1, 8), normal(2, 8)], outputs, {"groups": 1, "eps": 1e-5}, 2e-5)


@variants()
@few
@given(batch=st.integers(1, 3), channels=sizes, space=spaces, fw=optional, bw=optional, seed=SEEDS)
def test_sums_of_scales_and_shifts(
    variant: str, batch: int, channels: int, space: tuple[int, ...], fw: bool, bw: bool, seed: int
) -> None:
    for axis, shape in ((1, (batch, channels, *space)), (-1, (batch, *space, channels))):
        gy, x, weights = normal(seed, *shape), normal(seed + 1, *shape), normal(seed + 2, batch)
        gammas = [normal(seed + 3 + i, batch, channels) if on else None for i, on in enumerate((fw, bw))]
        start = [normal(seed + 5, channels).astype(np.float64)]
        check(variant, "BiasGrad", [gy, weights, gammas[1]], start, {"axis": axis}, 1e-5)
        check(variant, "ScaleGrad", [gy, x, weights, *gammas], start, {"axis": axis}, 1e-5)
        if axis == 1:
            kept = selected(x, normal(seed + 6, batch, channels), channels)
            check(variant, "ScaleGradSparse", [*kept, gy, weights, gammas[1]], start, {}, 1e-5)


@variants()
@few
@given(batch=st.integers(1, 4), count=st.integers(1, 300), threads=st.integers(1, 3))
def test_masks(variant: str, batch: int, count: int, threads: int) -> None:
    x, mask = normal(0, batch, count), packed((batch, count), 1)
    check(variant, "Relu", [x], [garbage(x.shape), garbage(mask.shape, np.uint8)], {}, threads=threads)
    for attrs in ({"inside": 1.0, "outside": 0.0}, {"inside": 0.3, "outside": -2.0}):
        check(variant, "MaskGrad", [x, mask], [garbage(x.shape)], attrs, threads=threads)


@variants()
def test_large_masks_are_shared_between_threads(variant: str) -> None:
    x, mask = normal(0, 2, 700_001), packed((2, 700_001), 1)
    check(variant, "Relu", [x], [garbage(x.shape), garbage(mask.shape, np.uint8)], {}, threads=2)
    check(variant, "MaskGrad", [x, mask], [garbage(x.shape)], {"inside": 1.0, "outside": 0.0}, threads=2)


def windows(rank: int) -> Any:
    def each(strategy: st.SearchStrategy[int], count: int = rank) -> Any:
        return st.lists(strategy, min_size=count, max_size=count)

    return st.fixed_dictionaries(
        {
            "size": each(st.integers(1, 14)),
            "kernel": each(st.integers(1, 5)),
            "strides": each(st.integers(1, 3)),
        }
    ).flatmap(
        lambda found: st.fixed_dictionaries(
            {
                **{name: st.just(value) for name, value in found.items()},
                "pads": st.tuples(*[st.integers(0, k - 1) for k in found["kernel"] * 2]).map(list),
            }
        )
    )


@variants()
@few
@given(
    window=st.one_of(windows(1), windows(2)), batch=st.integers(1, 3), channels=st.integers(1, 20),
    coarse=optional,
)  # fmt: skip
def test_max_pool(
    variant: str, window: dict[str, list[int]], batch: int, channels: int, coarse: bool
) -> None:
    size, attrs = window["size"], {name: window[name] for name in ("kernel", "strides", "pads")}
    check_pool(variant, (batch, channels, *size), attrs, coarse)


def check_pool(
    variant: str, shape: tuple[int, ...], attrs: dict[str, Any], coarse: bool, threads: int = 1
) -> None:
    rank = len(shape) - 2
    pads = attrs["pads"]
    out = [
        (shape[2 + i] + pads[i] + pads[i + rank] - attrs["kernel"][i]) // attrs["strides"][i] + 1
        for i in range(rank)
    ]
    if min(out) < 1:
        return
    x = normal(0, *shape)
    if coarse:
        x = np.round(x)  # equal maxima
    y = (*shape[:2], *out)
    taps = int(np.prod(attrs["kernel"]))
    bits = 2 if taps <= 4 else 4 if taps <= 16 else 8
    argmax = packed(y, bits) if bits < 8 else np.zeros(y, np.uint8)
    check(variant, "MaxPool", [x], [garbage(y), garbage(argmax.shape, np.uint8)], attrs, threads=threads)
    places = selected_places(x, y, argmax, attrs)
    check(variant, "MaxPoolGrad", [normal(1, *y), places], [garbage(shape)], attrs, threads=threads)


def selected_places(x: Array, y: tuple[int, ...], argmax: Array, attrs: dict[str, Any]) -> Array:
    """A real argmax, by the reference."""
    places = np.zeros_like(argmax)
    run("MaxPool", [x], [garbage(y, np.float32), places], **attrs)
    return places


@variants()
@pytest.mark.parametrize("coarse", [False, True])
def test_pools_of_threads_and_wide_windows(variant: str, coarse: bool) -> None:
    pairs = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    check_pool(variant, (2, 21, 90, 91), pairs, coarse, threads=2)
    check_pool(variant, (1, 3, 5, 600), pairs, coarse)
    check_pool(variant, (1, 2, 20, 21), {"kernel": [16, 16], "strides": [3, 3], "pads": [0] * 4}, coarse)


@variants()
def test_an_argmax_of_more_than_256_places_has_32_bits(variant: str) -> None:
    attrs = {"kernel": [17, 16], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    x, places = normal(0, 2, 3, 21, 20), garbage((2, 3, 3, 3), np.int32)
    check(variant, "MaxPool", [x], [garbage((2, 3, 3, 3)), places], attrs)


@variants()
@few
@given(data=st.data(), batch=st.integers(1, 3), space=spaces, kind=st.sampled_from(["Add", "Sub", "Mul"]))
def test_operands_with_repeated_axes(
    variant: str, data: Any, batch: int, space: tuple[int, ...], kind: str
) -> None:
    shapes = [(batch, *(n if data.draw(optional) else 1 for n in space)) for _ in range(2)]
    y = tuple(max(pair) for pair in zip(*shapes, strict=True))
    check(variant, kind, [normal(0, *shapes[0]), normal(1, *shapes[1])], [garbage(y)], {})


@variants()
@few
@given(
    batch=st.integers(1, 3), channels=st.integers(2, 30), hidden=st.integers(1, 9), space=spaces,
    rho=st.sampled_from([0.0, 0.2, 0.9]), cap=st.sampled_from([None, 1, 7]), rms=optional, keep=optional,
)  # fmt: skip
def test_attention(
    variant: str, batch: int, channels: int, hidden: int, space: tuple[int, ...], rho: float, cap: int | None,
    rms: bool, keep: bool,
) -> None:  # fmt: skip
    kept = np.float32(normal(9, batch, channels) > -0.5)
    kept[:, 0] = 1
    for axis, shape in ((1, (batch, channels, *space)), (-1, (batch, *space, channels))):
        inputs = [
            normal(0, *shape), normal(1, hidden, channels), normal(2, hidden),
            normal(3, channels, hidden), normal(4, channels), kept if keep else None,
        ]  # fmt: skip
        attrs = {"rho": rho, "cap": cap, "normalize": "rms" if rms else "none", "axis": axis}
        check(variant, "ChannelAttention", inputs, [garbage((batch, channels))], attrs, 1e-4)


@variants()
@few
@given(
    batch=st.integers(1, 9), classes=st.integers(2, 30), used=st.integers(2, 30), smoothing=st.floats(0, 0.5)
)
def test_losses(variant: str, batch: int, classes: int, used: int, smoothing: float) -> None:
    logits, weights = 5 * normal(0, batch, classes), normal(1, batch)
    mask = np.float32(np.arange(classes) < used)
    labels = np.random.default_rng(2).integers(0, min(used, classes), batch)
    for attrs in ({}, {"label_smoothing": smoothing}):
        outputs = [garbage((1,)), garbage(logits.shape)]
        check(variant, "SoftmaxCrossEntropy", [logits, labels, weights, mask], outputs, attrs, 2e-5)
    outputs = [garbage((1,)), garbage(logits.shape)]
    check(variant, "MeanSquaredError", [logits, normal(3, batch, classes), weights], outputs, {}, 2e-5)
