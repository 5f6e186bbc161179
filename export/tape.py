"""What gradient rules write to: the backward and attention sections under construction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..edge.program import BATCH, Attr, Op, Tensor

SAMPLE_WEIGHT = "sample_weight"
Attrs = Mapping[str, Attr]
NO_ATTRS: Attrs = {}


@dataclass(frozen=True)
class LayerAttention:
    """Attributes of a layer's attention operations, by side ("fw", "bw"); an absent side has none.

    Attributes:
        sides: side -> attributes of its ChannelAttention (rho, cap, normalize).
        hidden: side -> hidden width of its module.
    """

    sides: Mapping[str, Mapping[str, Attr]]
    hidden: Mapping[str, int]


@dataclass
class Tape:
    """Collects backward operations while the forward operations are walked in reverse.

    Gradients of activations are per sample and unweighted (docs/program.md).

    Attributes:
        tensors: every tensor of the program; grows.
        wanted: values that depend on a parameter, so their gradient must be passed on.
        attention: by layer name.
        readers: value -> number of operations that will contribute to its gradient.
    """

    tensors: dict[str, Tensor]
    wanted: frozenset[str]
    attention: Mapping[str, LayerAttention]
    readers: Mapping[str, int]
    backward: list[Op] = field(default_factory=list)
    attending: list[Op] = field(default_factory=list)
    _parts: dict[str, list[str]] = field(default_factory=dict)

    def gradient(self, value: str) -> str:
        """Name of the gradient of a value; where several readers contributed, their sum is emitted here."""
        parts = self._parts[value]
        while len(parts) > 1:
            first, second, *rest = parts
            name = f"d::{value}" if not rest else f"d::{value}@1-{self.readers[value] - len(rest)}"
            self._emit(Op("Add", (first, second), (name,), ""), self._like(name, value))
            parts[:] = [name, *rest]
        return parts[0]

    def seed(self, value: str, gradient: str) -> None:
        """Set where the walk starts: the gradient of the logits."""
        self._parts[value] = [gradient]

    def pass_on(self, value: str, gradient: str) -> None:
        """Let the gradient of an operation's output be the contribution to its input, unchanged."""
        if value in self.wanted:
            self._parts.setdefault(value, []).append(gradient)

    def to_input(
        self, op: Op, kind: str, inputs: tuple[str, ...], attrs: Attrs = NO_ATTRS, position: int = 0
    ) -> None:
        """Emit the contribution of a forward operation to the gradient of one of its inputs, if wanted."""
        value = op.inputs[position]
        if value not in self.wanted:
            return
        parts = self._parts.setdefault(value, [])
        name = f"d::{value}" if self.readers[value] == 1 else f"d::{value}@{len(parts) + 1}"
        self._emit(Op(kind, inputs, (name,), op.layer, attrs), self._like(name, value))
        parts.append(name)

    def to_parameter(
        self, op: Op, param: str, kind: str, inputs: tuple[str, ...], attrs: Attrs = NO_ATTRS
    ) -> None:
        """Emit a parameter's gradient `grad::PARAM`; an absent parameter ("") and a constant have none."""
        if param in self.wanted:
            name = f"grad::{param}"
            tensor = Tensor(name, self.tensors[param].shape, role="gradient")
            self._emit(Op(kind, inputs, (name,), op.layer, attrs), tensor)

    def attend(self, op: Op, fw_on: str, bw_on: str, axis: int = 1) -> tuple[str, str]:
        """Emit the layer's ChannelAttention operations and return (fw, bw), "" where the layer has none.

        Args:
            op: the layer's forward operation.
            fw_on: what forward attention looks at.
            bw_on: what backward attention looks at.
            axis: where both have their channels, 1 or -1.
        """
        attention = self.attention.get(op.layer)
        if attention is None:
            return "", ""
        fw = self._attend(op.layer, "fw", fw_on, attention, axis)
        return fw, self._attend(op.layer, "bw", bw_on, attention, axis)

    def _attend(self, layer: str, side: str, value: str, attention: LayerAttention, axis: int) -> str:
        if side not in attention.sides:
            return ""
        channels, hidden = int(self.tensors[value].shape[axis]), attention.hidden[side]
        shapes = {"w1": (hidden, channels), "b1": (hidden,), "w2": (channels, hidden), "b2": (channels,)}
        params = [
            Tensor(f"attention::{layer}::{side}::{p}", s, role="attention-param") for p, s in shapes.items()
        ]
        self.tensors.update((tensor.name, tensor) for tensor in params)
        name = f"{side}::{layer}"
        self.tensors[name] = Tensor(name, (BATCH, channels))
        inputs = (value, *(tensor.name for tensor in params), "")
        attrs = {**attention.sides[side], "axis": axis}
        self.attending.append(Op("ChannelAttention", inputs, (name,), layer, attrs))
        return name

    def emit(self, op: Op, tensor: Tensor) -> str:
        """Emit an intermediate operation of a gradient and return the name of what it computes."""
        self._emit(op, tensor)
        return tensor.name

    def _emit(self, op: Op, tensor: Tensor) -> None:
        self.tensors[tensor.name] = tensor
        self.backward.append(op)

    def _like(self, name: str, value: str) -> Tensor:
        return Tensor(name, self.tensors[value].shape)
