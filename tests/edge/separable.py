"""A program in the manner of MobileNetV2: expand, depthwise, project, a residual, each with its gradients."""

from __future__ import annotations

from edge_adapt.edge.program import Program

from .programs import CONV, Builder, Net, finished, loss, started

POINT = {**CONV, "pads": [0, 0, 0, 0]}
PLANE = {"axes": [2, 3], "keepdims": 0}
WIDER = 4


def separable_program(net: Net) -> Program:
    """Build relu(stem(images)) = r, s = r + project(relu6(depthwise(relu6(expand(r))))), mean, fc."""
    b, wide = started(net, 5), WIDER * net.channels
    maps, wide_maps = ("N", net.channels, net.size, net.size), ("N", wide, net.size, net.size)
    kernels = {
        "stem": (net.channels, net.colours, 3, 3),
        "expand": (wide, net.channels, 1, 1),
        "depthwise": (wide, 1, 3, 3),
        "project": (net.channels, wide, 1, 1),
    }
    for name, shape in kernels.items():
        b.layer(name, "conv", {"weight": shape, "bias": shape[:1]})
    b.layer("fc", "fc", {"weight": (net.classes, net.channels), "bias": (net.classes,)})
    for name in ("y", "r", "p", "s", "g::s", "g::r2", "g::r", "g::y"):
        b.tensor(name, maps)
    for name in ("e", "ec", "d", "dc", "g::dc", "g::d", "g::ec", "g::e"):
        b.tensor(name, wide_maps)
    for name, shape in (("mask", maps), ("emask", wide_maps), ("dmask", wide_maps)):
        b.tensor(name, shape, "saved", "bit1")
    b.tensor("mean", ("N", net.channels))
    b.like("g::mean", "mean")
    _forward(b, net, {**CONV, "groups": wide})
    loss(b)
    _backward(b, {**CONV, "groups": wide})
    return finished(b, net)


def _forward(b: Builder, net: Net, local: dict[str, object]) -> None:
    six = {"min": 0.0, "max": 6.0}
    b.op("forward", "Conv", ["images", "stem.weight", "stem.bias"], ["y"], "stem", **CONV)
    b.op("forward", "Relu", ["y"], ["r", "mask"])
    b.op("forward", "Conv", ["r", "expand.weight", "expand.bias"], ["e"], "expand", **POINT)
    b.op("forward", "Clip", ["e"], ["ec", "emask"], **six)
    b.op("forward", "Conv", ["ec", "depthwise.weight", "depthwise.bias"], ["d"], "depthwise", **local)
    b.op("forward", "Clip", ["d"], ["dc", "dmask"], **six)
    b.op("forward", "Conv", ["dc", "project.weight", "project.bias"], ["p"], "project", **POINT)
    b.op("forward", "Add", ["r", "p"], ["s"])
    b.op("forward", "Mean", ["s"], ["mean"], **PLANE)
    b.op("forward", "Fc", ["mean", "fc.weight", "fc.bias"], [b.tensor("logits", ("N", net.classes))], "fc")


def _backward(b: Builder, local: dict[str, object]) -> None:
    inside = {"inside": 1.0, "outside": 0.0}
    b.op("backward", "FcInputGrad", ["g::logits", "fc.weight"], ["g::mean"], "fc")
    b.op("backward", "FcWeightGrad", ["mean", "g::logits", "sample_weight"], ["grad::fc.weight"], "fc")
    b.op("backward", "BiasGrad", ["g::logits", "sample_weight"], ["grad::fc.bias"], "fc", axis=-1)
    b.op("backward", "MeanGrad", ["g::mean"], ["g::s"], **PLANE)
    _layer(b, "project", "dc", "g::s", "g::dc", POINT)
    b.op("backward", "MaskGrad", ["g::dc", "dmask"], ["g::d"], **inside)
    _layer(b, "depthwise", "ec", "g::d", "g::ec", local)
    b.op("backward", "MaskGrad", ["g::ec", "emask"], ["g::e"], **inside)
    _layer(b, "expand", "r", "g::e", "g::r2", POINT)
    b.op("backward", "Add", ["g::s", "g::r2"], ["g::r"])
    b.op("backward", "MaskGrad", ["g::r", "mask"], ["g::y"], **inside)
    _layer(b, "stem", "images", "g::y", "", CONV)


def _layer(b: Builder, name: str, x: str, gy: str, gx: str, attrs: dict[str, object]) -> None:
    if gx:
        b.op("backward", "ConvInputGrad", [gy, f"{name}.weight"], [gx], name, **attrs)
    b.op("backward", "ConvWeightGrad", [x, gy, "sample_weight"], [f"grad::{name}.weight"], name, **attrs)
    b.op("backward", "BiasGrad", [gy, "sample_weight"], [f"grad::{name}.bias"], name, axis=1)
