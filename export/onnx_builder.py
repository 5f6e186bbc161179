"""What ONNX expansions write to: nodes, constants and shapes of a graph under construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..edge.program import Tensor


@dataclass
class Builder:
    """Collects the standard-operator nodes (opset 18) that program operations expand into.

    Attributes:
        tensors: the program's tensors: their shapes are what expansions may rely on.
        nodes: emitted so far, in execution order.
        constants: emitted so far, by name; equal constants are one.
    """

    tensors: Mapping[str, Tensor]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    _by_value: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)

    def shape(self, name: str) -> tuple[int, ...]:
        """Fixed axes of a batched tensor (without the batch), or all axes of another."""
        tensor = self.tensors[name]
        return tuple(int(axis) for axis in (tensor.shape[1:] if tensor.batched else tensor.shape))

    def add(self, kind: str, *inputs: str, out: str = "", **attrs: Any) -> str:
        """Emit a node with one output and return the output's name (`out`, or a fresh one)."""
        return self.add_many(kind, inputs, (out or self.fresh(kind),), attrs)[0]

    def add_many(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], attrs: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """Emit a node; trailing absent inputs and outputs ("") are left away."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, _trimmed(inputs), _trimmed(outputs), name, **attrs))
        return tuple(outputs)

    def floats(self, value: float | Sequence[float] | NDArray[Any]) -> str:
        """A float32 constant."""
        return self._constant(np.asarray(value, np.float32))

    def ints(self, value: int | Sequence[int] | Sequence[Sequence[int]]) -> str:
        """An int64 constant."""
        return self._constant(np.asarray(value, np.int64))

    def bools(self, value: Sequence[bool] | NDArray[Any]) -> str:
        """A boolean constant."""
        return self._constant(np.asarray(value, np.bool_))

    def mean(self, value: str, axes: Sequence[int], keep: bool = True) -> str:
        """Mean over axes."""
        return self.add("ReduceMean", value, self.ints(axes), keepdims=int(keep))

    def total(self, value: str, axes: Sequence[int], out: str = "") -> str:
        """Sum over axes, which disappear."""
        return self.add("ReduceSum", value, self.ints(axes), out=out, keepdims=0)

    def reshape(self, value: str, shape: Sequence[int], out: str = "") -> str:
        """Reshape; 0 keeps an axis, -1 is what remains."""
        return self.add("Reshape", value, self.ints(shape), out=out)

    def over_space(self, value: str, rank: int) -> str:
        """Give a per-channel value, (N, C) or (C,), trailing axes to broadcast over maps of that rank."""
        axes = list(range(-1, 1 - rank, -1))
        return self.add("Unsqueeze", value, self.ints(axes)) if axes else value

    def _constant(self, value: NDArray[Any]) -> str:
        key = (str(value.dtype), value.shape, value.tobytes())
        if key not in self._by_value:
            name = f"const::{len(self.constants)}"
            self._by_value[key] = name
            self.constants[name] = numpy_helper.from_array(value, name)
        return self._by_value[key]

    def fresh(self, hint: str) -> str:
        """A value name that is not in use."""
        return f"{hint.lower()}::{len(self.nodes)}"


def sample_scale(builder: Builder, sample_weight: str, *gammas: str) -> str:
    """sample_weight[n] times the per-channel gammas that are present ("" where absent), (N, 1) or (N, C)."""
    scale = builder.add("Unsqueeze", sample_weight, builder.ints([1]))
    for gamma in filter(None, gammas):
        scale = builder.add("Mul", scale, gamma)
    return scale


def _trimmed(names: Sequence[str]) -> list[str]:
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept
