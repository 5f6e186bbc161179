"""Clip-and-normalise by hand and against NumPy, the straight-through gradient, the modules' wiring."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from edge_adapt.cloud.inner.attention import (
    Attention,
    clip_and_normalise,
    gradient_input,
    init_attention,
    select,
    slots,
)
from edge_adapt.cloud.inner.scores import Pass
from edge_adapt.edge.cost import Layer, kept_bound
from hypothesis import given, settings
from hypothesis import strategies as st

LAYERS = (
    Layer("a", "conv", 40, 64, 96, 4, 6, 1, 9),
    Layer("n", "norm", 12, 96, 96, 6, 6, 3, 1),
    Layer("z", "fc", 70, 6, 10, 6, 10, 1, 6, is_output=True),
)


def clipped(values: list[float], rho: float, cap: int | None = None) -> list[float]:
    pi = torch.tensor(values, dtype=torch.float64)
    return clip_and_normalise(pi, select(pi, rho, kept_bound(len(values), rho, cap))).tolist()


def numpy_gamma(pi: np.ndarray, rho: float, cap: int | None = None) -> np.ndarray:
    """The definition of algorithms.md, section 2, step by step."""
    count = len(pi)
    order = sorted(range(count), key=lambda c: (pi[c], c))
    c = 0
    while rho > 0 and c < count and math.fsum(pi[order[:c]]) < rho:
        c += 1
    if cap is not None:
        c = max(c, count - cap)
    c = min(c, count - 1)
    kept = pi.copy()
    kept[order[:c]] = 0
    return kept / kept.sum() * count


@pytest.mark.parametrize(
    ("values", "rho", "cap", "expected"),
    [
        ([1.0], 0.3, None, [1.0]),
        ([0.1, 0.2, 0.7], 0.0, None, [0.3, 0.6, 2.1]),
        ([0.1, 0.2, 0.7], 0.25, None, [0.0, 0.0, 3.0]),
        ([0.1, 0.4, 0.5], 0.05, None, [0.0, 4 / 3, 5 / 3]),
        ([0.05, 0.05, 0.9], 0.3, None, [0.0, 0.0, 3.0]),
        ([0.25, 0.25, 0.25, 0.25], 0.3, None, [0.0, 0.0, 2.0, 2.0]),
        ([0.25, 0.25, 0.25, 0.25], 0.25, None, [0.0, 4 / 3, 4 / 3, 4 / 3]),
        ([0.1, 0.2, 0.3, 0.4], 0.0, 2, [0.0, 0.0, 12 / 7, 16 / 7]),
        ([0.1, 0.2, 0.3, 0.4], 0.6, 3, [0.0, 0.0, 0.0, 4.0]),
    ],
)
def test_clip_and_normalise_by_hand(values, rho, cap, expected):
    assert clipped(values, rho, cap) == pytest.approx(expected, abs=1e-14)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-6, 6), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9]),
    st.one_of(st.none(), st.integers(1, 8)),
)
def test_clip_and_normalise_follows_its_definition(logits, rho, cap):
    pi = torch.tensor(logits, dtype=torch.float64).softmax(0)
    gamma = clip_and_normalise(pi, select(pi, rho, kept_bound(len(logits), rho, cap)))
    np.testing.assert_allclose(gamma.numpy(), numpy_gamma(pi.numpy(), rho, cap), rtol=1e-12, atol=1e-12)
    assert int((gamma > 0).sum()) <= kept_bound(len(logits), rho, cap)


def test_straight_through_has_the_gradient_of_the_unclipped_output():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    direction = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    pi = logits.softmax(0)
    gamma = clip_and_normalise(pi, select(pi, 0.5, 4))
    (found,) = torch.autograd.grad((gamma * direction).sum(), logits)
    (expected,) = torch.autograd.grad((4 * logits.softmax(0) * direction).sum(), logits)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(gamma, 4 * pi)


def test_gradient_input_is_invariant_to_the_scale_of_the_loss_unless_raw():
    pooled = torch.tensor([[1e-4, -2e-4, 5e-5]], dtype=torch.float64)
    torch.testing.assert_close(
        gradient_input(pooled, "rms"), gradient_input(25 * pooled, "rms"), rtol=1e-6, atol=0
    )
    assert gradient_input(pooled, "raw") is pooled


def test_batch_logits_are_averaged_before_softmax_and_samples_stand_alone_on_the_device():
    """Against a NumPy forward pass of one module; row n*T + t is sample n of task t."""
    tasks, samples = 2, 3
    params = {n: v.double() for n, v in init_attention(LAYERS, 2, torch.Generator().manual_seed(0)).items()}
    p = torch.randn(samples * tasks, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w1, b1, w2, b2 = (
        params[f"attention.n.fw.{part}"].numpy()
        for part in ("hidden.weight", "hidden.bias", "out.weight", "out.bias")
    )
    assert w1.shape == (3, 6)
    logits = np.maximum(p.numpy() @ w1.T + b1, 0) @ w2.T + b2

    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z - z.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    attention = Attention(params, ["n.fw"], {"fw": 0.3, "bw": 0.0})
    (found,) = attention.logits({"n.fw": p})
    batch, kept = attention.gammas([Pass(tasks, samples, averages=True).mean(found, axis=1)])
    for t in range(tasks):
        expected = numpy_gamma(softmax(logits[t::tasks].mean(0)), 0.3)
        np.testing.assert_allclose(batch["n.fw"][t].numpy(), expected, rtol=1e-12, atol=1e-12)
        assert (kept["n.fw"][t].numpy() == (expected > 0)).all()
    device, _ = attention.gammas([found])
    for row in range(samples * tasks):
        expected = numpy_gamma(softmax(logits[row]), 0.3)
        np.testing.assert_allclose(device["n.fw"][row].numpy(), expected, rtol=1e-12, atol=1e-12)


def test_modules_of_different_width_run_together_and_take_caps_and_recorded_selections():
    params = init_attention(LAYERS, 1, torch.Generator().manual_seed(0))
    keys = ["a.fw", "a.bw", "n.fw", "n.bw"]
    inputs = {
        key: torch.randn(2, 4 if key == "a.fw" else 6, generator=torch.Generator().manual_seed(2))
        for key in keys
    }
    attention = Attention(params, keys, {"fw": 0.3, "bw": 0.0}, caps={"a.fw": 1, "n.bw": 2})
    logits = attention.logits(inputs)
    gammas, kept = attention.gammas(logits)
    assert {key: kept[key].sum(-1).tolist() for key in ("a.fw", "a.bw", "n.bw")} == {
        "a.fw": [1, 1], "a.bw": [6, 6], "n.bw": [2, 2],
    }  # fmt: skip
    again, _ = attention.gammas(logits, recorded=kept)
    assert all(torch.equal(again[key], gammas[key]) for key in keys)
    flipped = {**kept, "a.fw": ~kept["a.fw"]}
    assert ((attention.gammas(logits, recorded=flipped)[0]["a.fw"] > 0) == flipped["a.fw"]).all()


def test_every_layer_but_the_output_has_two_modules():
    assert slots(LAYERS) == {"a.fw": 4, "a.bw": 6, "n.fw": 6, "n.bw": 6}


def test_one_channel_per_group_is_refused():
    single = Layer("n", "norm", 12, 96, 96, 6, 6, 6, 1)
    with pytest.raises(ValueError, match=r"attention: layer n needs more than one channel per group, got 6"):
        slots([single])
