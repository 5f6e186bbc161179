"""Expansions of layers at random shapes: stock onnxruntime in float32 against the NumPy meaning in float64."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from edge_adapt.edge.program import Layer, Op, Program, Tensor
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.onnx_graph import build_graph
from edge_adapt.export.tape import LayerAttention
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .ort import run_model

few = settings(max_examples=25, deadline=None, derandomize=True)
SIDES = {
    "fw": {"rho": 0.3, "cap": None, "normalize": "none"},
    "bw": {"rho": 0.2, "cap": None, "normalize": "rms"},
}
Shape = tuple[int, ...]


@dataclass(frozen=True)
class One:
    """A layer of one kind behind a scale that learns, before a linear head."""

    kind: str
    x: Shape
    y: Shape
    params: dict[str, Shape]
    attrs: dict[str, Any]
    extras: dict[str, Shape]
    channels: tuple[int, int] | None

    def forward(self) -> Program:
        shapes: dict[str, tuple[int | str, ...]] = {
            "images": ("N", *self.x),
            "stem": ("N", *self.x),
            "one": ("N", *self.y),
            "flat": ("N", prod(self.y)),
            "logits": ("N", 3),
            **{f"one::{name}": ("N", *shape) for name, shape in self.extras.items()},
        }
        params = {"stem.weight": (1,), "head.weight": (3, prod(self.y)), "head.bias": (3,)}
        params |= {f"one.{name}": shape for name, shape in self.params.items()}
        tensors = {name: Tensor(name, shape) for name, shape in shapes.items()}
        tensors |= {name: Tensor(name, shape, role="param") for name, shape in params.items()}
        tensors["images"] = Tensor("images", ("N", *self.x), role="input")
        own = tuple(f"one.{name}" for name in self.params)
        outputs = ("one", *(f"one::{name}" for name in self.extras))
        ops = (
            Op("Affine", ("images", "stem.weight", ""), ("stem",), "stem", {"axis": -1}),
            Op(self.kind, ("stem", *own), outputs, "one", self.attrs),
            Op("Reshape", ("one",), ("flat",)),
            Op("Fc", ("flat", "head.weight", "head.bias"), ("logits",), "head"),
        )
        owners = {"stem": ("stem.weight",), "one": own, "head": ("head.weight", "head.bias")}
        layers = tuple(
            Layer(name, "layer", names, tuple(f"grad::{n}" for n in names), at)
            for at, (name, names) in enumerate(owners.items())
        )
        return Program(tensors, {"forward": ops}, layers, {"images": "images"}, {"logits": "logits"}, 0)

    def check(self, batch: int, attended: bool) -> None:
        """Loss, logits and all gradients of one random batch."""
        attention = {}
        if attended and self.channels:
            hidden = dict(zip(SIDES, self.channels, strict=True))
            attention = {"one": LayerAttention(SIDES, hidden)}
        program = differentiate(self.forward(), attention, steps=1)
        rng = np.random.default_rng(0)
        roles = ("param", "attention-param", "input")
        named = [tensor for role in roles for tensor in program.with_role(role)]
        values = {t.name: rng.normal(size=t.concrete(batch)) for t in named}
        values |= {
            "labels": rng.integers(0, 3, batch),
            "class_mask": np.ones(3),
            "sample_weight": rng.uniform(size=batch),
        }
        names = ["loss", "logits", *(name for layer in program.layers for name in layer.grads)]
        exact = interpret(program, values, names, np.float64)
        found = run_model(build_graph(program, {}, {name: name for name in names}, adjustable=True), values)
        for name in names:
            scale = max(1.0, float(np.abs(exact[name]).max()))
            np.testing.assert_allclose(found[name], exact[name].reshape(found[name].shape), atol=1e-5 * scale)


sizes = st.integers(1, 7)
batches = st.integers(1, 3)


@st.composite
def convolutions(draw: st.DrawFn) -> One:
    rank = draw(st.integers(1, 2))
    groups, inner, outer = (draw(st.integers(1, 3)) for _ in range(3))
    each = [tuple(draw(st.integers(1, most)) for _ in range(rank)) for most in (7, 3, 3, 2)]
    space, kernel, strides, dilations = each
    pads = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    axes = zip(space, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True)
    out = tuple((s + before + after - d * (k - 1) - 1) // t + 1 for s, k, t, d, before, after in axes)
    assume(min(out) >= 1)
    attrs = {"strides": list(strides), "dilations": list(dilations), "pads": pads, "groups": groups}
    params = {"weight": (groups * outer, inner, *kernel), "bias": (groups * outer,)}
    channels = (groups * inner, groups * outer)
    return One("Conv", (channels[0], *space), (channels[1], *out), params, attrs, {}, channels)


@few
@given(convolutions(), batches, st.booleans())
def test_convolutions(one: One, batch: int, attended: bool) -> None:
    one.check(batch, attended)


@few
@given(st.lists(sizes, max_size=2), sizes, sizes, batches, st.booleans())
def test_linear_layers(places: list[int], inputs: int, outputs: int, batch: int, attended: bool) -> None:
    params = {"weight": (outputs, inputs), "bias": (outputs,)}
    one = One("Fc", (*places, inputs), (*places, outputs), params, {}, {}, (inputs, outputs))
    one.check(batch, attended)


@few
@given(st.lists(sizes, max_size=2), st.lists(sizes, min_size=1, max_size=2), batches, st.booleans())
def test_layer_norms(places: list[int], normalised: list[int], batch: int, attended: bool) -> None:
    shape = (*places, *normalised)
    assume(prod(normalised) > 2)
    params = {"weight": tuple(normalised), "bias": tuple(normalised)}
    channels = (normalised[0], normalised[0]) if len(normalised) == 1 else None
    attrs, extras = {"dims": len(normalised), "eps": 1e-2}, {"x_hat": shape, "inv_std": tuple(places)}
    One("LayerNorm", shape, shape, params, attrs, extras, channels).check(batch, attended)


@few
@given(st.integers(1, 3), st.integers(1, 3), st.lists(sizes, max_size=2), batches)
def test_group_norms(groups: int, per_group: int, space: list[int], batch: int) -> None:
    shape = (groups * per_group, *space)
    assume(per_group * prod(space) > 2)
    extras = {"x_hat": shape, "inv_std": (groups,)}
    attrs = {"groups": groups, "eps": 1e-2}
    One("GroupNorm", shape, shape, {"weight": shape[:1], "bias": shape[:1]}, attrs, extras, None).check(
        batch, False
    )


@few
@given(
    st.lists(sizes, min_size=1, max_size=3), st.sampled_from([1, -1]), st.integers(1, 3), batches, st.booleans()
)  # fmt: skip
def test_scales_and_shifts(shape: list[int], axis: int, trailing: int, batch: int, attended: bool) -> None:
    own = tuple(shape[:1] if axis == 1 else shape[-trailing:])
    params = {"weight": own, "bias": own}
    channels = (own[0], own[0]) if len(own) == 1 else None
    one = One("Affine", tuple(shape), tuple(shape), params, {"axis": axis}, {}, channels)
    one.check(batch, attended)
