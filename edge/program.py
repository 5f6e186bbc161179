"""The program: one adaptation, whole, as operations on named, typed, shaped tensors (see docs/program.md).

This module is only the data type and its JSON form. What an operation means is in `edge/reference`, how it is
differentiated and written as standard ONNX in `export/ops`, how it is lowered in `edge/lower`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import BundleError

FORMAT_VERSION = 1
BATCH = "N"
SECTIONS = ("forward", "loss", "backward", "attention", "update")
ROLES = ("param", "step-size", "attention-param", "input", "saved", "temporary", "gradient")
DTYPE_BITS = {
    "float32": 32,
    "float64": 64,
    "int64": 64,
    "int32": 32,
    "uint16": 16,
    "uint8": 8,
    "bit4": 4,
    "bit2": 2,
    "bit1": 1,
}

Attr = int | float | str | bool | None | list[int]


@dataclass(frozen=True)
class Tensor:
    """A named tensor. `shape` may start with the symbol "N": the number of samples in the current micro-batch."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str = "float32"
    role: str = "temporary"

    @property
    def batched(self) -> bool:
        """Whether the first axis is the batch."""
        return bool(self.shape) and self.shape[0] == BATCH

    def concrete(self, batch: int) -> tuple[int, ...]:
        """Return the shape with the batch symbol replaced by `batch`."""
        return tuple(batch if axis == BATCH else int(axis) for axis in self.shape)

    def size_bytes(self, batch: int) -> int:
        """Return the bytes of the tensor for `batch` samples; packed types round up per sample."""
        count = 1
        for axis in self.shape[1:] if self.batched else self.shape:
            count *= int(axis)
        one = (count * DTYPE_BITS[self.dtype] + 7) // 8
        return one * batch if self.batched else one


@dataclass(frozen=True)
class Op:
    """One operation. An empty string among `inputs` is an absent optional input, among `outputs` a dropped one."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layer: str = ""
    attrs: Mapping[str, Attr] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A unit that learns with one step size per step: a conv, an fc, a norm, or another learned tensor.

    Attributes:
        name: as in the model, for example "conv1".
        kind: "conv", "fc", "norm", "affine", "slope" or "log-std".
        params: parameter tensor names in the order (weight, bias); one of them may be absent.
        grads: for each parameter the name of its mean-gradient tensor (`grad::PARAM`).
        index: row of the step-size table.
    """

    name: str
    kind: str
    params: tuple[str, ...]
    grads: tuple[str, ...]
    index: int


@dataclass(frozen=True)
class Program:
    """The whole adaptation.

    Attributes:
        tensors: every tensor by name.
        sections: operations by section name; each section is in execution order.
        layers: the layers, in forward order.
        inputs: the program's inputs by part: `images` (the samples), what the loss reads (`labels` or `targets` or
            `actions` and `advantages`), `sample_weight`, and for classification `class_mask`.
        outputs: `logits` and `loss` to tensor names.
        steps: K, the number of gradient steps the step sizes were learned for.
    """

    tensors: Mapping[str, Tensor]
    sections: Mapping[str, tuple[Op, ...]]
    layers: tuple[Layer, ...]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    steps: int

    def ops(self, sections: Iterable[str] = SECTIONS) -> Iterator[Op]:
        """Yield the operations of the given sections."""
        for section in sections:
            yield from self.sections.get(section, ())

    def with_role(self, role: str) -> list[Tensor]:
        """Return the tensors of one role, in table order."""
        return [tensor for tensor in self.tensors.values() if tensor.role == role]


def program_to_json(program: Program) -> dict[str, Any]:
    """Return the JSON object of `program.json`."""
    return {
        "format": FORMAT_VERSION,
        "steps": program.steps,
        "inputs": dict(program.inputs),
        "outputs": dict(program.outputs),
        "layers": [_layer_to_json(layer) for layer in program.layers],
        "tensors": {
            t.name: {"shape": list(t.shape), "dtype": t.dtype, "role": t.role}
            for t in program.tensors.values()
        },
        "sections": {name: [_op_to_json(op) for op in ops] for name, ops in program.sections.items()},
    }


def program_from_json(data: Mapping[str, Any]) -> Program:
    """Read the JSON object of `program.json`; raises BundleError naming what is wrong and where."""
    if data.get("format") != FORMAT_VERSION:
        raise BundleError(
            f"program.json: format {data.get('format')!r} is not known, expected {FORMAT_VERSION}"
        )
    try:
        program = Program(
            tensors={
                name: Tensor(name, tuple(t["shape"]), t["dtype"], t["role"])
                for name, t in data["tensors"].items()
            },
            sections={name: tuple(_op_from_json(op) for op in ops) for name, ops in data["sections"].items()},
            layers=tuple(_layer_from_json(layer) for layer in data["layers"]),
            inputs=dict(data["inputs"]),
            outputs=dict(data["outputs"]),
            steps=int(data["steps"]),
        )
        check_program(program)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"program.json: malformed ({type(error).__name__}: {error})") from error
    return program


def check_program(program: Program) -> None:
    """Raise BundleError unless every tensor is known and defined before it is used, exactly once."""
    for tensor in program.tensors.values():
        if tensor.dtype not in DTYPE_BITS or tensor.role not in ROLES:
            raise BundleError(
                f"program: tensor {tensor.name!r} has dtype {tensor.dtype!r}, role {tensor.role!r}"
            )
        if any(axis != BATCH and (not isinstance(axis, int) or axis < 0) for axis in tensor.shape):
            raise BundleError(f"program: tensor {tensor.name!r} has shape {list(tensor.shape)}")
    if unknown := set(program.sections) - set(SECTIONS):
        raise BundleError(f"program: unknown sections {sorted(unknown)}, expected some of {list(SECTIONS)}")
    produced: set[str] = set()
    for op in program.ops():
        for name in (*op.inputs, *op.outputs):
            if name and name not in program.tensors:
                raise BundleError(f"program: {op.kind} of layer {op.layer!r} names unknown tensor {name!r}")
        for name in filter(None, op.outputs):
            if name in produced:
                raise BundleError(f"program: tensor {name!r} is written by two operations")
            produced.add(name)
    _check_sources(program, produced)


def _check_sources(program: Program, produced: set[str]) -> None:
    given = {
        t.name
        for t in program.tensors.values()
        if t.role in ("param", "step-size", "attention-param", "input")
    }
    for op in program.ops():
        for name in filter(None, op.inputs):
            if name not in produced and name not in given:
                raise BundleError(
                    f"program: {op.kind} of layer {op.layer!r} reads {name!r}, which nothing writes"
                )


def _op_to_json(op: Op) -> dict[str, Any]:
    return {
        "op": op.kind,
        "layer": op.layer,
        "inputs": list(op.inputs),
        "outputs": list(op.outputs),
        "attrs": dict(op.attrs),
    }


def _op_from_json(data: Mapping[str, Any]) -> Op:
    inputs, outputs = (tuple(map(str, data[side])) for side in ("inputs", "outputs"))
    return Op(str(data["op"]), inputs, outputs, str(data["layer"]), dict(data["attrs"]))


def _layer_to_json(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "params": list(layer.params),
        "grads": list(layer.grads),
        "index": layer.index,
    }


def _layer_from_json(data: Mapping[str, Any]) -> Layer:
    params, grads = (tuple(map(str, data[part])) for part in ("params", "grads"))
    return Layer(str(data["name"]), str(data["kind"]), params, grads, int(data["index"]))
