"""A residual block with norms, as in ResNet12: two branches that start and end together."""

from __future__ import annotations

from edge_adapt.edge.program import Program

from .programs import CONV, POOL, Builder, Net, finished, head_gradients, loss, started

NET = Net(size=16)
POINT = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1], "groups": 1}
GEOMETRY = {"stem": (3, CONV), "first": (3, CONV), "second": (3, CONV), "side": (1, POINT)}
LAYERS = (*(f"{name}.{part}" for name in GEOMETRY for part in ("conv", "norm")), "fc")


def branch_program(net: Net = NET) -> Program:
    """Build stem, relu(second(relu(first(stem))) + side(stem)), pool, fc; every branch is conv and norm."""
    b = started(net, len(LAYERS))
    stem = _activated(b, _normed(b, net, "stem", "images"), "stem")
    first = _activated(b, _normed(b, net, "first", stem), "first")
    second, side = _normed(b, net, "second", first), _normed(b, net, "side", stem)
    b.op("forward", "Add", [second, side], [b.like("sum", second)])
    _activated(b, "sum", "out")
    half = ("N", net.channels, net.size // 2, net.size // 2)
    b.tensor("pooled", half)
    b.op("forward", "MaxPool", ["out.act"], ["pooled", b.tensor("argmax", half, "saved", "bit2")], **POOL)
    features = net.channels * (net.size // 2) ** 2
    b.layer("fc", "fc", {"weight": (net.classes, features), "bias": (net.classes,)})
    b.op("forward", "Reshape", ["pooled"], [b.tensor("flat", ("N", features))])
    b.op("forward", "Fc", ["flat", "fc.weight", "fc.bias"], [b.tensor("logits", ("N", net.classes))], "fc")
    loss(b)
    head_gradients(b, "pooled")
    b.op("backward", "MaxPoolGrad", ["g::pooled", "argmax"], [b.like("g::out.act", "sum")], **POOL)
    _inactivated(b, "out", "g::sum")
    _branch_gradients(b, net, "second", "first.act", "g::sum")
    _inactivated(b, "first", "g::first.y")
    _branch_gradients(b, net, "first", "stem.act", "g::first.y")
    _branch_gradients(b, net, "side", "stem.act", "g::sum")
    b.op("backward", "Add", ["g::first.x", "g::side.x"], [b.like("g::stem.act", "sum")])
    _inactivated(b, "stem", "g::stem.y")
    _branch_gradients(b, net, "stem", "images", "g::stem.y")
    return finished(b, net)


def _normed(b: Builder, net: Net, name: str, x: str) -> str:
    side, geometry = GEOMETRY[name]
    conv, norm, channels = f"{name}.conv", f"{name}.norm", int(b.tensors[x].shape[1])
    b.layer(conv, "conv", {"weight": (net.channels, channels, side, side), "bias": (net.channels,)})
    b.layer(norm, "norm", {"scale": (net.channels,), "bias": (net.channels,)})
    y = b.tensor(f"{name}.raw", ("N", net.channels, net.size, net.size))
    b.op("forward", "Conv", [x, f"{conv}.weight", f"{conv}.bias"], [y], conv, **geometry)
    outputs = [b.like(f"{name}.y", y), b.like(f"{name}.x_hat", y, "saved")]
    outputs.append(b.tensor(f"{name}.inv_std", ("N", net.groups), "saved"))
    inputs = [y, f"{norm}.scale", f"{norm}.bias"]
    b.op("forward", "GroupNorm", inputs, outputs, norm, groups=net.groups, eps=1e-5)
    return f"{name}.y"


def _activated(b: Builder, x: str, name: str) -> str:
    mask = b.tensor(f"{name}.mask", b.tensors[x].shape, "saved", "bit1")
    b.op("forward", "Relu", [x], [b.like(f"{name}.act", x), mask])
    return f"{name}.act"


def _inactivated(b: Builder, name: str, result: str) -> None:
    source = "g::first.act" if name == "first" else f"g::{name}.act"
    inputs, outputs = [source, f"{name}.mask"], [b.like(result, "sum")]
    b.op("backward", "MaskGrad", inputs, outputs, inside=1.0, outside=0.0)


def _branch_gradients(b: Builder, net: Net, name: str, x: str, gradient: str) -> None:
    conv, norm, weight = f"{name}.conv", f"{name}.norm", "sample_weight"
    x_hat, geometry = f"{name}.x_hat", GEOMETRY[name][1]
    b.op("backward", "ScaleGrad", [gradient, x_hat, weight], [f"grad::{norm}.scale"], norm, axis=1)
    b.op("backward", "BiasGrad", [gradient, weight], [f"grad::{norm}.bias"], norm, axis=1)
    back = [gradient, x_hat, f"{name}.inv_std", f"{norm}.scale"]
    raw = b.like(f"g::{name}.raw", "sum")
    b.op("backward", "GroupNormInputGrad", back, [raw], norm, groups=net.groups)
    if x != "images":
        result = "g::first.act" if name == "second" else f"g::{name}.x"
        b.op("backward", "ConvInputGrad", [raw, f"{conv}.weight"], [b.like(result, x)], conv, **geometry)
    b.op("backward", "ConvWeightGrad", [x, raw, weight], [f"grad::{conv}.weight"], conv, **geometry)
    b.op("backward", "BiasGrad", [raw, weight], [f"grad::{conv}.bias"], conv, axis=1)
