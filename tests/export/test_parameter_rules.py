"""Parameters outside of layers, BatchNorm in inference: recognised, differentiated, the same in onnxruntime."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export import ExportError
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.capture import capture
from edge_adapt.export.onnx_graph import build_graph
from edge_adapt.export.tape import LayerAttention
from torch import nn

from .cases import CASES, Example, captured, case
from .cases import built as layer_module
from .cases_parameters import IMAGE, PARAMETERS, TOKENS, Between, Case, Own, parameter_case
from .ort import run_model


@cache
def built(name: str) -> Case:
    make, shape, _ = PARAMETERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return parameter_case(Between(make(), shape), shape)


@pytest.mark.parametrize("name", PARAMETERS)
def test_what_torch_writes_becomes_these_operations(name):
    ops = list(built(name).program.ops(("forward",)))
    flattened = [op.kind for op in ops][-2:] == ["Reshape", "Fc"]
    middle = [(op.kind, dict(op.attrs)) for op in ops[1 : -2 if flattened else -1]]
    assert middle == PARAMETERS[name][2]


@pytest.mark.parametrize("name", PARAMETERS)
def test_gradients_of_everything_are_those_of_autograd(name):
    one = built(name)
    expected = one.truth()
    found = interpret(one.program, one.values(), list(expected), np.float64)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_expansion_in_stock_onnxruntime_is_the_same(name):
    one = built(name)
    expected = one.truth()
    model = build_graph(one.program, {}, {key: key for key in expected}, adjustable=True)
    found = run_model(model, one.values())
    for key, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[key], value, atol=1e-5 * scale, err_msg=key)


def test_parameters_are_layers_named_after_what_owns_them():
    found = {name: {(layer.name, layer.kind) for layer in built(name).program.layers} for name in PARAMETERS}
    assert ("middle", "affine") in found["scale-and-shift"]
    assert {("middle", "fc"), ("stem", "fc"), ("head", "fc")} == found["matrix"]
    assert ("middle", "affine") in found["class-token"]
    assert {("stem", "conv"), ("head", "fc")} == found["normalised-by-constants"]


def test_a_subtracted_parameter_is_learned_as_its_negative():
    torch.manual_seed(6)
    net = Between(Own(lambda x, p: x - p, p=(3, 1, 1)), IMAGE)
    network = capture(net, IMAGE)
    (affine,) = (op for op in network.program.ops(("forward",)) if op.kind == "Affine")
    np.testing.assert_array_equal(network.values[affine.inputs[2]], -net.middle.p.detach().numpy().reshape(3))
    assert network.origins[affine.inputs[2]].source == ""


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d(3), IMAGE),
        (nn.BatchNorm1d(5, eps=0.1), TOKENS),
        (nn.BatchNorm2d(3, affine=False), IMAGE),
    ],
    ids=["maps", "signals", "no-affine"],
)
def test_a_batch_norm_in_inference_is_one_scale_and_shift(norm, shape):
    torch.manual_seed(8)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    for parameter in norm.parameters():
        parameter.data.uniform_(0.5, 1.5)
    one = parameter_case(Between(norm, shape).eval(), shape)
    scale, shift = next(op.inputs[1:] for op in one.program.ops(("forward",)) if op.kind == "Affine")
    deviation = np.sqrt(norm.running_var.numpy() + norm.eps)
    logits = one.module(torch.from_numpy(one.images))
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(one.labels), reduction="none")
    params = dict(one.module.named_parameters())
    loss = (each * torch.from_numpy(one.sample_weight)).sum()
    grads = {
        n: g.numpy() for n, g in zip(params, torch.autograd.grad(loss, list(params.values())), strict=True)
    }
    expected = {f"grad::{name}": grads[name] for name in grads if not name.startswith("middle")}
    if norm.affine:  # the shift holds the mean times the scale: the two are parameters of their own here
        expected[f"grad::{shift}"] = grads["middle.bias"]
        expected[f"grad::{scale}"] = (
            grads["middle.weight"] * deviation + norm.running_mean.numpy() * grads["middle.bias"]
        )
    learned = {name for layer in one.program.layers for name in layer.params}
    assert learned.isdisjoint({scale, shift}) != norm.affine
    exact = {scale: 1 / deviation, shift: -norm.running_mean.numpy() / deviation}
    if norm.affine:
        weight = norm.weight.detach().numpy()
        exact = {scale: weight / deviation, shift: norm.bias.detach().numpy() + exact[shift] * weight}
    for name, value in exact.items():
        np.testing.assert_allclose(one.network.values[name], value, rtol=1e-6)
    names = [one.program.outputs["logits"], *expected]
    found = interpret(one.program, one.values(**exact), names, np.float64)
    np.testing.assert_allclose(found[names[0]], logits.detach().numpy(), atol=1e-8)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-8, err_msg=name)


REFUSED = {
    "divided": (lambda: Own(lambda x, p: x / p, p=(4,)), TOKENS, "division by a parameter"),
    "repeated-twice": (
        lambda: Own(lambda x, t: torch.cat([x, t.repeat(x.shape[0], 2, 1)], 1), t=(1, 2, 4)), TOKENS,
        "cannot be repeated"),
    "computed-weight": (
        lambda: Own(lambda x, w: torch.nn.functional.conv2d(x, w * w.mean()), w=(2, 3, 1, 1)), IMAGE,
        "compute no weight"),
    "computed-scale": (
        lambda: Own(lambda x, p: x * p.exp(), p=(4,)), TOKENS, "'exp' is computed from parameters"),
    "live-statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), IMAGE, "give a BatchNorm running"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_said_is_refused_in_one_line(name):
    make, shape, message = REFUSED[name]
    net = Between(make(), shape).eval()
    with pytest.raises(ExportError, match=message) as refusal:
        capture(net, shape)
    assert "\n" not in str(refusal.value)
    assert "node '" in str(refusal.value)


def test_attention_on_a_scale_weighs_every_samples_own_gradient():
    one, rng = built("scale-and-shift"), np.random.default_rng(4)
    sides = {side: {"rho": 0.0, "cap": None, "normalize": "none"} for side in ("fw", "bw")}
    attention = LayerAttention(sides, {"fw": 2, "bw": 2})
    program = differentiate(one.network.program, {"middle": attention}, steps=1)
    plain = one.values()
    values = {**plain, **{t.name: rng.normal(size=t.shape) for t in program.with_role("attention-param")}}
    names = ["grad::middle.scale", "grad::middle.bias"]
    gammas = interpret(program, values, ["fw::middle", "bw::middle"], np.float64)
    expected = dict.fromkeys(names, 0)
    for sample in range(len(one.images)):
        data = {key: plain[key][sample : sample + 1] for key in ("images", "labels", "sample_weight")}
        own = interpret(one.program, {**plain, **data}, names, np.float64)
        factor = gammas["bw::middle"][sample]
        expected[names[0]] = expected[names[0]] + own[names[0]] * factor * gammas["fw::middle"][sample]
        expected[names[1]] = expected[names[1]] + own[names[1]] * factor
    found = interpret(program, values, names, np.float64)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12, err_msg=name)


def test_attention_on_parameters_without_an_axis_of_channels_is_refused():
    sides = {"bw": {"rho": 0.0, "cap": None, "normalize": "none"}}
    attention = {"middle": LayerAttention(sides, {"bw": 2})}
    with pytest.raises(ExportError, match=r"one number a channel; its parameters have shape \(5, 4\)"):
        differentiate(built("position-embedding").network.program, attention, steps=1)
    of_maps = captured(layer_module("layer-norm-of-maps"), CASES["layer-norm-of-maps"][1])
    with pytest.raises(ExportError, match="a LayerNorm over 3 axes has none"):
        differentiate(of_maps.program, attention, steps=1)


SLOPES = [
    "conv1d-dilated-groups",
    "conv-asymmetric-depthwise",
    "fc-of-tokens",
    "layer-norm",
    "layer-norm-of-maps",
]
SLOPES += ["instance-norm-of-signals", "group-norm-no-affine"]


@pytest.mark.parametrize("one", [*SLOPES, *PARAMETERS])
def test_gradients_are_the_slopes_of_the_loss(one):
    example: Example | Case = built(one) if one in PARAMETERS else case(one, attended=False)
    values, rng = example.values(), np.random.default_rng(3)
    for layer in example.program.layers:
        moves = {name: rng.normal(size=values[name].shape) for name in layer.params}
        losses = []
        for step in (1e-5, -1e-5):
            moved = {name: values[name] + step * move for name, move in moves.items()}
            losses.append(
                interpret(example.program, {**values, **moved}, ["loss"], np.float64)["loss"].item()
            )
        grads = interpret(example.program, values, list(layer.grads), np.float64)
        slope = sum(np.vdot(grads[f"grad::{name}"], move) for name, move in moves.items())
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope, rel=1e-6, abs=1e-8), layer.name


TOGETHER = [(name, attended) for name in SLOPES for attended in (False, True)]
TOGETHER += [("class-token", False), ("scale-and-shift", False)]


@pytest.mark.parametrize(("one", "attended"), TOGETHER)
def test_samples_together_are_samples_one_by_one(one, attended):
    example: Example | Case = built(one) if one in PARAMETERS else case(one, attended)
    values = example.values()
    names = [name for layer in example.program.layers for name in layer.grads]
    whole = interpret(example.program, values, names, np.float64)
    parts = []
    for sample in range(len(values["images"])):
        data = {key: values[key][sample : sample + 1] for key in ("images", "labels", "sample_weight")}
        parts.append(interpret(example.program, {**values, **data}, names, np.float64))
    for name in names:
        np.testing.assert_allclose(whole[name], sum(part[name] for part in parts), atol=1e-12, err_msg=name)
