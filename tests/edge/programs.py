"""Programs for tests, after docs/program.md: [conv, norm, ReLU, pool] blocks and an fc head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.program import Layer, Op, Program, Tensor, check_program
from numpy.typing import NDArray

POOL = {"kernel": [2, 2], "strides": [2, 2], "pads": [0, 0, 0, 0]}
CONV = {"strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "groups": 1}


@dataclass
class Builder:
    """Collects tensors and operations while the network is written down."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    sections: dict[str, list[Op]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def tensor(
        self, name: str, shape: tuple[int | str, ...], role: str = "temporary", dtype: str = "float32"
    ) -> str:
        self.tensors[name] = Tensor(name, shape, dtype, role)
        return name

    def like(self, name: str, other: str, role: str = "temporary") -> str:
        return self.tensor(name, self.tensors[other].shape, role)

    def op(
        self, section: str, kind: str, inputs: list[str], outputs: list[str], layer: str = "", **attrs: Any
    ) -> None:
        self.sections.setdefault(section, []).append(Op(kind, tuple(inputs), tuple(outputs), layer, attrs))

    def layer(self, name: str, kind: str, shapes: dict[str, tuple[int, ...]]) -> None:
        params = tuple(self.tensor(f"{name}.{part}", shape, "param") for part, shape in shapes.items())
        grads = tuple(self.like(f"grad::{param}", param, "gradient") for param in params)
        index = len(self.layers)
        self.layers.append(Layer(name, kind, params, grads, index))
        for param, grad in zip(params, grads, strict=True):
            updated = self.like(f"updated::{param}", param)
            self.op("update", "SgdUpdate", [param, grad, "alpha"], [updated], name, layer_index=index)

    def attention(self, layer: str, side: str, source: str, rho: float, keep: bool) -> str:
        channels = self.tensors[source].shape[1]
        parts = {"w1": (channels, channels), "b1": (channels,), "w2": (channels, channels), "b2": (channels,)}
        params = [
            self.tensor(f"attention::{layer}::{side}::{p}", s, "attention-param") for p, s in parts.items()
        ]
        keeps = [self.tensor(f"keep::{layer}::{side}", ("N", channels), "input")] if keep else []
        gamma = self.tensor(f"{side}::{layer}", ("N", channels))
        normalize = "rms" if side == "bw" else "none"
        attrs = {"rho": rho, "cap": None, "normalize": normalize}
        self.op("attention", "ChannelAttention", [source, *params, *keeps], [gamma], layer, axis=1, **attrs)
        return gamma


@dataclass(frozen=True)
class Net:
    """What `conv_program` builds; rho = None is a program without attention."""

    size: int = 12
    colours: int = 1
    channels: int = 8
    blocks: int = 2
    classes: int = 5
    groups: int = 4
    rho: float | None = None
    keep: bool = False
    steps: int = 5


def conv_program(net: Net = Net()) -> Program:
    """Build the whole adaptation: forward, loss, backward, attention, updates."""
    b = started(net, 2 * net.blocks + 1)
    x = "images"
    for block in range(1, net.blocks + 1):
        x = _forward_block(b, net, block, x)
    features = int(np.prod(b.tensors[x].shape[1:]))
    b.op("forward", "Reshape", [x], [b.tensor("flat", ("N", features))])
    b.layer("fc", "fc", {"weight": (net.classes, features), "bias": (net.classes,)})
    b.op("forward", "Fc", ["flat", "fc.weight", "fc.bias"], [b.tensor("logits", ("N", net.classes))], "fc")
    loss(b)
    head_gradients(b, x)
    for block in range(net.blocks, 0, -1):
        _backward_block(b, net, block)
    return finished(b, net)


def started(net: Net, layers: int) -> Builder:
    b = Builder()
    b.tensor("alpha", (net.steps, layers), "step-size")
    b.tensor("images", ("N", net.colours, net.size, net.size), "input")
    b.tensor("labels", ("N",), "input", "int64")
    b.tensor("sample_weight", ("N",), "input")
    b.tensor("class_mask", (net.classes,), "input")
    return b


def finished(b: Builder, net: Net) -> Program:
    inputs = {name: name for name in ("images", "labels", "sample_weight", "class_mask")}
    sections = {name: tuple(ops) for name, ops in b.sections.items()}
    outputs = {"logits": "logits", "loss": "loss"}
    program = Program(b.tensors, sections, tuple(b.layers), inputs, outputs, net.steps)
    check_program(program)
    return program


def _forward_block(b: Builder, net: Net, block: int, x: str) -> str:
    conv, norm, (_, channels, size, _) = f"conv{block}", f"norm{block}", b.tensors[x].shape
    b.layer(conv, "conv", {"weight": (net.channels, int(channels), 3, 3), "bias": (net.channels,)})
    y = b.tensor(f"y{block}", ("N", net.channels, size, size))
    b.op("forward", "Conv", [x, f"{conv}.weight", f"{conv}.bias"], [y], conv, **CONV)
    b.layer(norm, "norm", {"scale": (net.channels,), "bias": (net.channels,)})
    z, x_hat = b.like(f"z{block}", y), b.like(f"x_hat{block}", y, "saved")
    inv_std = b.tensor(f"inv_std{block}", ("N", net.groups), "saved")
    attrs = {"groups": net.groups, "eps": 1e-5}
    b.op("forward", "GroupNorm", [y, f"{norm}.scale", f"{norm}.bias"], [z, x_hat, inv_std], norm, **attrs)
    r, mask = b.like(f"r{block}", y), b.tensor(f"mask{block}", b.tensors[y].shape, "saved", "bit1")
    b.op("forward", "Relu", [z], [r, mask])
    half = int(size) // 2
    p = b.tensor(f"p{block}", ("N", net.channels, half, half), "saved")
    argmax = b.tensor(f"argmax{block}", ("N", net.channels, half, half), "saved", "bit2")
    b.op("forward", "MaxPool", [r], [p, argmax], **POOL)
    return p


def loss(b: Builder) -> None:
    inputs = ["logits", "labels", "sample_weight", "class_mask"]
    outputs = [b.tensor("loss", (1,)), b.like("g::logits", "logits")]
    b.op("loss", "SoftmaxCrossEntropy", inputs, outputs)


def head_gradients(b: Builder, pooled: str) -> None:
    gradient = "g::logits"
    b.op("backward", "FcInputGrad", [gradient, "fc.weight"], [b.like("g::flat", "flat")], "fc")
    b.op("backward", "FcWeightGrad", ["flat", gradient, "sample_weight"], ["grad::fc.weight"], "fc")
    b.op("backward", "BiasGrad", [gradient, "sample_weight"], ["grad::fc.bias"], "fc", axis=-1)
    b.op("backward", "Reshape", ["g::flat"], [b.like(f"g::{pooled}", pooled)])


def _backward_block(b: Builder, net: Net, block: int) -> None:
    conv, norm, x = f"conv{block}", f"norm{block}", f"p{block - 1}" if block > 1 else "images"
    gr, gz, gy = (b.like(f"g::{name}{block}", f"y{block}") for name in "rzy")
    b.op("backward", "MaxPoolGrad", [f"g::p{block}", f"argmax{block}"], [gr], **POOL)
    b.op("backward", "MaskGrad", [gr, f"mask{block}"], [gz], inside=1.0, outside=0.0)
    x_hat = f"x_hat{block}"
    fw, bw = _attention_pair(b, net, norm, x_hat, gz)
    b.op("backward", "ScaleGrad", [gz, x_hat, "sample_weight", fw, bw], [f"grad::{norm}.scale"], norm, axis=1)
    b.op("backward", "BiasGrad", [gz, "sample_weight", bw], [f"grad::{norm}.bias"], norm, axis=1)
    back = [gz, x_hat, f"inv_std{block}", f"{norm}.scale"]
    b.op("backward", "GroupNormInputGrad", back, [gy], norm, groups=net.groups)
    fw, bw = _attention_pair(b, net, conv, x, gy)
    if block > 1:
        b.op("backward", "ConvInputGrad", [gy, f"{conv}.weight"], [b.like(f"g::{x}", x)], conv, **CONV)
    b.op(
        "backward", "ConvWeightGrad", [x, gy, "sample_weight", fw, bw], [f"grad::{conv}.weight"], conv, **CONV
    )
    b.op("backward", "BiasGrad", [gy, "sample_weight", bw], [f"grad::{conv}.bias"], conv, axis=1)


def _attention_pair(b: Builder, net: Net, layer: str, x: str, gy: str) -> tuple[str, str]:
    if net.rho is None:
        return "", ""
    return b.attention(layer, "fw", x, net.rho, net.keep), b.attention(layer, "bw", gy, 0.0, net.keep)


def residual_program(net: Net = Net()) -> Program:
    """Build r = relu(conv1(images)), s = r + conv2(r), flatten, fc: values with several readers."""
    b = started(net, 3)
    maps = ("N", net.channels, net.size, net.size)
    for name, channels in (("conv1", net.colours), ("conv2", net.channels)):
        b.layer(name, "conv", {"weight": (net.channels, channels, 3, 3), "bias": (net.channels,)})
    features = net.channels * net.size**2
    b.layer("fc", "fc", {"weight": (net.classes, features), "bias": (net.classes,)})
    for name in ("y1", "r", "y2", "s", "g::s", "g::r2", "g::r", "g::y1"):
        b.tensor(name, maps)
    b.tensor("mask", maps, "saved", "bit1")
    b.op("forward", "Conv", ["images", "conv1.weight", "conv1.bias"], ["y1"], "conv1", **CONV)
    b.op("forward", "Relu", ["y1"], ["r", "mask"])
    b.op("forward", "Conv", ["r", "conv2.weight", "conv2.bias"], ["y2"], "conv2", **CONV)
    b.op("forward", "Add", ["r", "y2"], ["s"])
    b.op("forward", "Reshape", ["s"], [b.tensor("flat", ("N", features))])
    b.op("forward", "Fc", ["flat", "fc.weight", "fc.bias"], [b.tensor("logits", ("N", net.classes))], "fc")
    loss(b)
    head_gradients(b, "s")
    b.op("backward", "ConvInputGrad", ["g::s", "conv2.weight"], ["g::r2"], "conv2", **CONV)
    b.op("backward", "Add", ["g::s", "g::r2"], ["g::r"])
    b.op("backward", "MaskGrad", ["g::r", "mask"], ["g::y1"], inside=1.0, outside=0.0)
    for conv, x, gy in (("conv2", "r", "g::s"), ("conv1", "images", "g::y1")):
        b.op("backward", "ConvWeightGrad", [x, gy, "sample_weight"], [f"grad::{conv}.weight"], conv, **CONV)
        b.op("backward", "BiasGrad", [gy, "sample_weight"], [f"grad::{conv}.bias"], conv, axis=1)
    return finished(b, net)


@dataclass
class DictWeights:
    """Parameters in memory, as an engine reads them."""

    tensors: dict[str, NDArray[Any]]

    def mapped(self, name: str) -> NDArray[Any]:
        return self.tensors[name]

    def copy(self, name: str) -> NDArray[Any]:
        return self.tensors[name].copy()

    def give_back(self) -> None:
        """Nothing is mapped."""


def random_weights(program: Program, seed: int = 0, step_size: float = 0.1) -> DictWeights:
    """Draw parameters of sensible scale; every step size is `step_size`, norm scales are near 1."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, NDArray[Any]] = {}
    for tensor in program.tensors.values():
        shape = tensor.concrete(0)
        fan_in = max(1, int(np.prod(shape[1:])))
        values = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        if tensor.role in ("param", "attention-param"):
            tensors[tensor.name] = values.astype(np.float32)
        if tensor.name.endswith(".scale") and tensor.role == "param":
            tensors[tensor.name] = (1 + 0.1 * values).astype(np.float32)
        if tensor.role == "step-size":
            tensors[tensor.name] = np.full(shape, step_size, np.float32)
    return DictWeights(tensors)


@dataclass
class RandomSupport:
    """Labelled uint8 noise, as an engine reads a support set."""

    spec: InputSpec
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def loss_inputs(self) -> dict[str, NDArray[Any]]:
        return {"labels": self.labels}

    def fill(self, start: int, out: NDArray[np.float32]) -> None:
        self.spec.preprocess(self.images[start : start + len(out)], out)


def random_support(
    net: Net = Net(), samples: int = 10, classes: int | None = None, seed: int = 1
) -> RandomSupport:
    """Draw `samples` noise images of `classes` classes, each class brighter than the one before."""
    rng = np.random.default_rng(seed)
    count = classes or net.classes
    labels = np.arange(samples, dtype=np.int64) % count
    noise = rng.integers(0, 128, (samples, net.size, net.size, net.colours))
    images = (noise + labels[:, None, None, None] * (127 // count)).astype(np.uint8)
    spec = InputSpec(net.colours, net.size, net.size, (0.5,) * net.colours, (0.25,) * net.colours)
    return RandomSupport(spec, images, labels, tuple(f"class {i}" for i in range(count)))


def masks(program: Program, *names: str, steps: int | None = None) -> tuple[tuple[bool, ...], ...]:
    """Return the mask that updates exactly the named layers at every step; no names: all layers."""
    row = tuple(not names or layer.name in names for layer in program.layers)
    return (row,) * (steps or program.steps)
