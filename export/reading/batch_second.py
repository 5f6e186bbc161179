"""Attention that computes with the batch second, or merged with the heads, written out with the batch first.

torch's nn.MultiheadAttention, as its exporters write it, transposes to (T, N, E), splits the packed q, k, v there, and
folds the heads into the batch, (N*heads, T, d). Between that first transpose and the last one back every value is
followed as axes that may be reordered, split and joined; only what computes is written, with the batch as first axis.
Where a node has no rule here, nothing is rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ...edge.program import BATCH
from .batch_axis import Axes, BatchFirst


class _GiveUp(Exception):
    """A node that has no rule here."""


@dataclass(eq=False)
class _Atom:
    """An axis that is moved as a whole; its size, or the batch."""

    size: int | str


@dataclass(frozen=True)
class _View:
    """A value of the graph: which tensor holds it, that tensor's axes, and the value's axes as groups of those."""

    tensor: str
    held: tuple[_Atom, ...]
    axes: tuple[tuple[_Atom, ...], ...]


def batch_never_second(
    made: BatchFirst,
    constants: Mapping[str, NDArray[Any]],
    ranks: Mapping[str, int],
    shapes: Mapping[str, Axes],
) -> BatchFirst:
    """Rewrite nodes; the same nodes where there is nothing to do, or something without a rule.

    Args:
        made: topologically sorted nodes, new tensors and shapes.
        constants: integers that nodes read, by name.
        ranks: of initializers.
        shapes: of values; the batch axis is "N", "2N", ...
    """
    try:
        return _Rewriting(constants, ranks, {**shapes, **made.shapes}).run(made)
    except _GiveUp:
        return made


@dataclass
class _Rewriting:
    constants: Mapping[str, NDArray[Any]]
    ranks: Mapping[str, int]
    shapes: dict[str, Axes]
    views: dict[str, _View] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)
    new_shapes: dict[str, Axes] = field(default_factory=dict)
    node: NodeProto = field(default_factory=NodeProto)

    def run(self, made: BatchFirst) -> BatchFirst:
        for self.node in made.nodes:
            kind, inputs = self.node.op_type, self.node.input
            if self._begins():
                self._begin()
            elif any(name in self.sizes for name in inputs) or (kind == "Shape" and inputs[0] in self.views):
                self._size()
            if self.node.output[0] in self.sizes or self.node.output[0] in self.views:
                continue
            if any(name in self.views for name in inputs):
                self._finish_or_keep(self._follow())
            else:
                self.nodes.append(self.node)
        if not self.new_shapes:
            return made
        tensors, shapes = [*made.tensors, *self.tensors], {**made.shapes, **self.new_shapes}
        return BatchFirst(self.nodes, tensors, shapes)

    def _begins(self) -> bool:
        shape = self.shapes.get(self.node.input[0] if self.node.input else "", ())
        perm = self._ints("perm")
        plain = self.node.op_type == "Transpose" and self.node.input[0] not in self.views and len(perm) > 1
        return plain and perm[0] != 0 and bool(shape) and shape[0] == BATCH and 1 not in shape

    def _begin(self) -> None:
        source = self.node.input[0]
        atoms = tuple(_Atom(size) for size in self.shapes[source])
        axes = tuple((atoms[axis],) for axis in self._ints("perm"))
        self.views[self.node.output[0]] = _View(source, atoms, axes)

    def _size(self) -> None:
        """What is computed from a value's shape is not needed: all shapes are known."""
        if not any(name in self.views for name in self.node.input) or self.node.op_type == "Shape":
            self.sizes.update(self.node.output)

    def _finish_or_keep(self, view: _View) -> None:
        """A value whose first axis is the batch again is written under its own name."""
        name = self.node.output[0]
        if len(view.axes[0]) != 1 or view.axes[0][0].size != BATCH:
            self.views[name] = view
            return
        order = tuple(atom for group in view.axes for atom in group)
        view = self._ordered(view, order)
        self._emit("Reshape", (view.tensor, self._target(self.shapes[name])), self.shapes[name], out=name)

    def _follow(self) -> _View:
        rules: dict[str, Callable[[], _View]] = {
            "Identity": lambda: self.views[self.node.input[0]],
            "Transpose": self._transpose, "Reshape": self._reshape, "Squeeze": self._reshape,
            "Unsqueeze": self._reshape, "Gather": self._gather, "MatMul": self._matmul, "Gemm": self._gemm,
            "Add": self._with_constant, "Mul": self._with_constant, "Div": self._with_constant,
            "Softmax": self._softmax,
        }  # fmt: skip
        if self.node.op_type not in rules:
            raise _GiveUp
        return rules[self.node.op_type]()

    def _transpose(self) -> _View:
        view = self.views[self.node.input[0]]
        return _View(view.tensor, view.held, tuple(view.axes[axis] for axis in self._ints("perm")))

    def _reshape(self) -> _View:
        view = self.views[self.node.input[0]]
        waiting = [atom for group in view.axes for atom in group]
        groups: list[tuple[_Atom, ...]] = []
        for size in self.shapes[self.node.output[0]]:
            group: list[_Atom] = []
            wanted, batch = _factor(size)
            while wanted > 1 or batch:
                if not waiting:
                    raise _GiveUp
                atom = waiting.pop(0)
                if atom.size == BATCH and batch:
                    batch = False
                elif isinstance(atom.size, int) and wanted % atom.size == 0:
                    wanted //= atom.size
                elif isinstance(atom.size, int) and wanted > 1 and atom.size % wanted == 0:
                    view, atom, rest = self._split(view, atom, wanted)
                    waiting.insert(0, rest)
                    wanted = 1
                else:
                    raise _GiveUp
                group.append(atom)
            groups.append(tuple(group))
        if waiting:
            raise _GiveUp
        return _View(view.tensor, view.held, tuple(groups))

    def _split(self, view: _View, atom: _Atom, first: int) -> tuple[_View, _Atom, _Atom]:
        """The tensor with one of its axes taken apart."""
        one, other = _Atom(first), _Atom(int(atom.size) // first)
        held = tuple(new for old in view.held for new in ((one, other) if old is atom else (old,)))
        shape = [each.size for each in held]
        return _View(self._emit("Reshape", (view.tensor, self._target(shape)), shape), held, ()), one, other

    def _gather(self) -> _View:
        view, place = self.views[self.node.input[0]], self.constants.get(self.node.input[1])
        axis = self._int("axis", 0)
        if place is None or place.ndim != 0 or len(view.axes[axis]) != 1 or view.axes[axis][0].size == BATCH:
            raise _GiveUp
        atom = view.axes[axis][0]
        held = tuple(each for each in view.held if each is not atom)
        at, shape = view.held.index(atom), [each.size for each in held]
        part = self._emit("Gather", (view.tensor, self.node.input[1]), shape, axis=at)
        return _View(part, held, (*view.axes[:axis], *view.axes[axis + 1 :]))

    def _matmul(self) -> _View:
        left, right = self.node.input
        if left in self.views and right in self.views:
            return self._product(self.views[left], self.views[right])
        if left not in self.views or self.ranks.get(right, len(self.shapes.get(right, ()))) != 2:
            raise _GiveUp
        return self._linear(self.views[left], right)

    def _linear(self, view: _View, weight: str) -> _View:
        """x W over the last axis of the value, wherever its other axes are."""
        view = self._last_joined(view)
        width = self.shapes[self.node.output[0]][-1]
        out = _Atom(width)
        held = (*view.held[:-1], out)
        result = self._emit("MatMul", (view.tensor, weight), [atom.size for atom in held])
        return _View(result, held, (*view.axes[:-1], (out,)))

    def _gemm(self) -> _View:
        x, weight, *bias = self.node.input
        plain = self._float("alpha") == self._float("beta") == 1 and not self._int("transA", 0)
        if x not in self.views or not plain:
            raise _GiveUp
        if self._int("transB", 0):
            weight = self._emit("Transpose", (weight,), None, perm=[1, 0])
        view = self._linear(self.views[x], weight)
        shape = [atom.size for atom in view.held]
        return _View(self._emit("Add", (view.tensor, bias[0]), shape), view.held, view.axes) if bias else view

    def _product(self, left: _View, right: _View) -> _View:
        """A product of matrices for every element of the axes before them."""
        outer = tuple(atom for group in left.axes[:-2] for atom in group)
        same = tuple(atom for group in right.axes[:-2] for atom in group)
        if (
            [atom.size for atom in outer] != [atom.size for atom in same]
            or not outer
            or outer[0].size != BATCH
        ):
            raise _GiveUp
        ends = (*left.axes[-2:], *right.axes[-2:])
        if any(len(group) != 1 for group in ends):
            raise _GiveUp
        (rows,), (inner,), (other,), (columns,) = ends
        first = self._ordered(left, (*outer, rows, inner))
        second = self._ordered(right, (*same, other, columns))
        columns = _Atom(columns.size)  # in self-attention it would be the rows' own axis
        held = (*outer, rows, columns)
        result = self._emit("MatMul", (first.tensor, second.tensor), [atom.size for atom in held])
        return _View(result, held, (*left.axes[:-2], (rows,), (columns,)))

    def _with_constant(self) -> _View:
        """A sum or product with one number, or with one number per element of the last axis."""
        position = next(i for i, name in enumerate(self.node.input) if name in self.views)
        other = self.node.input[1 - position]
        rank = self.ranks.get(other, len(self.shapes[other]) if other in self.shapes else -1)
        if other in self.views or rank not in (0, 1):
            raise _GiveUp
        view = (
            self._last_joined(self.views[self.node.input[position]])
            if rank
            else self.views[self.node.input[position]]
        )
        operands = (view.tensor, other) if position == 0 else (other, view.tensor)
        return _View(
            self._emit(self.node.op_type, operands, [atom.size for atom in view.held]), view.held, view.axes
        )

    def _softmax(self) -> _View:
        view = self.views[self.node.input[0]]
        if self._int("axis", -1) not in (-1, len(view.axes) - 1):
            raise _GiveUp
        view = self._last_joined(view)
        result = self._emit("Softmax", (view.tensor,), [atom.size for atom in view.held], axis=-1)
        return _View(result, view.held, view.axes)

    def _last_joined(self, view: _View) -> _View:
        """The same value, held with its last axis last and in one piece."""
        last = view.axes[-1]
        if any(atom.size == BATCH for atom in last):
            raise _GiveUp
        others = [atom for atom in view.held if not any(atom is each for each in last)]
        view = self._ordered(view, (*others, *last))
        if len(last) == 1:
            return view
        whole = _Atom(prod(int(atom.size) for atom in last))
        held = (*others, whole)
        shape = [atom.size for atom in held]
        joined = self._emit("Reshape", (view.tensor, self._target(shape)), shape)
        return _View(joined, held, (*view.axes[:-1], (whole,)))

    def _ordered(self, view: _View, order: Sequence[_Atom]) -> _View:
        """The same value, held with its axes in this order; the batch stays first."""
        perm = [view.held.index(atom) for atom in order]
        if perm == list(range(len(view.held))):
            return view
        if perm[0] != 0 or len(perm) != len(view.held):
            raise _GiveUp
        held = tuple(order)
        moved = self._emit("Transpose", (view.tensor,), [atom.size for atom in held], perm=perm)
        return _View(moved, held, view.axes)

    def _emit(
        self, kind: str, inputs: Sequence[str], shape: Axes | None, out: str = "", **attributes: Any
    ) -> str:
        """Write a node and return its output."""
        name = out or f"{self.node.output[0]}::first::{len(self.nodes)}"
        made = helper.make_node(kind, list(inputs), [name], self.node.name, **attributes)
        made.metadata_props.extend(self.node.metadata_props)
        self.nodes.append(made)
        if shape is not None:
            self.new_shapes[name] = list(shape)
            self.shapes[name] = list(shape)
        return name

    def _target(self, shape: Axes) -> str:
        name = f"{self.node.output[0]}::shape::{len(self.tensors)}"
        values = np.array([-1 if isinstance(size, str) else size for size in shape], np.int64)
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def _ints(self, name: str) -> list[int]:
        return next((list(each.ints) for each in self.node.attribute if each.name == name), [])

    def _int(self, name: str, default: int) -> int:
        return next((int(each.i) for each in self.node.attribute if each.name == name), default)

    def _float(self, name: str) -> float:
        return next((float(each.f) for each in self.node.attribute if each.name == name), 1.0)


def _factor(size: int | str) -> tuple[int, bool]:
    """A size as a number, and whether the batch is a factor of it: "12N" is (12, True)."""
    if isinstance(size, int):
        return size, False
    number = size.removesuffix(BATCH)
    if not size.endswith(BATCH) or not (number == "" or number.isdigit()):
        raise _GiveUp
    return int(number or 1), True
