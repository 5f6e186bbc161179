"""A forward ONNX graph, indexed so that operations can be recognised backwards from the output."""

from __future__ import annotations

import ast
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ...edge.program import BATCH
from ..errors import ExportError
from ..param import Param
from ..source_line import line_in_trace
from .cuts import plain_nodes

_VIEWS = ("Unsqueeze", "Reshape", "Cast", "CastLike", "Identity")
_SCOPES = "pkg.torch.onnx.name_scopes"
_TRACE = "pkg.torch.onnx.stack_trace"

Shape = tuple[int | str, ...]


class ForwardGraph:
    """Look-ups on the graph of an ONNX model with one input and one output.

    Attributes:
        input: name of the graph's input.
        output: name of the graph's output.
        params: names of the initializers that are parameters of the module.

    Raises:
        ExportError: the graph has more than one input or output.
    """

    def __init__(self, model: ModelProto, params: frozenset[str]) -> None:
        graph = model.graph
        if len(graph.input) != 1 or len(graph.output) != 1:
            raise ExportError(
                f"the module has {len(graph.input)} inputs and {len(graph.output)} outputs; "
                "expected one image tensor in and one logits tensor out"
            )
        self._model = model
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.params = params.intersection(tensor.name for tensor in graph.initializer)
        infos = (*graph.input, *graph.output, *graph.value_info)
        batch = _dims(graph.input[0])[0]
        self._shapes = {info.name: _shape(info, batch) for info in infos}
        self._types = {info.name: info.type.tensor_type.elem_type for info in infos}
        plain = plain_nodes(graph, self._shapes)
        nodes = plain.nodes
        self._shapes |= {name: tuple(shape) for name, shape in plain.shapes.items()}
        self._producers = {name: node for node in nodes for name in node.output}
        self._positions = {name: at for at, node in enumerate(nodes) for name in node.output}
        self._initializers = {tensor.name: tensor for tensor in (*graph.initializer, *plain.tensors)}
        moving = [
            node for node in nodes if node.op_type != "Shape" or node.input[0] not in self._initializers
        ]
        self._varying = _varying(moving, {self.input, *self.params})
        self._activations = _varying([node for node in nodes if node.op_type != "Shape"], {self.input})

    def resolve(self, value: str) -> str:
        """The value itself, or what it is an identical copy of."""
        while value in self._producers and self._producers[value].op_type == "Identity":
            value = self._producers[value].input[0]
        return value

    def producer(self, value: str, kind: str | None = None) -> NodeProto | None:
        """The node that computes a value, if there is one and it is of the kind asked for."""
        node = self._producers.get(self.resolve(value))
        return node if node is not None and kind in (None, node.op_type) else None

    def position(self, value: str) -> int:
        """Place of the value's node in execution order."""
        return self._positions[value]

    def shape(self, value: str) -> Shape:
        """Shape of a value; the batch axis is "N".

        Raises:
            ExportError: an axis other than the first is not a fixed number.
        """
        shape = self._shapes.get(value)
        if shape is None or not all(isinstance(axis, int) for axis in shape if axis != BATCH):
            raise ExportError(
                f"{self._of(value)}its shape is {_text(shape)}, not fixed but for the batch N; keep the batch as the "
                "first axis of its own and every other size fixed"
            )
        return shape

    def _of(self, value: str) -> str:
        node = self.producer(value)
        return f"value {value!r}: " if node is None else f"{self.described(node)}: "

    def parameter(self, value: str) -> str | None:
        """Name of the module parameter that a value is, seen through reshapes, transpositions and casts."""
        return self._origin(value)[0]

    def _origin(self, value: str) -> tuple[str | None, bool]:
        """The module parameter that a value is, and whether it is seen with its two axes swapped."""
        transposed = False
        while value not in self.params:
            node = self._producers.get(value)
            if node is None or not (node.op_type in _VIEWS or _swaps(node)):
                return None, False
            transposed ^= _swaps(node)
            value = node.input[0]
        return value, transposed

    def is_activation(self, value: str) -> bool:
        """Whether a value depends on the input, and is neither a parameter nor a size."""
        return value in self._activations

    def param(self, part: str, value: str) -> Param | None:
        """A value as an operation's parameter; None if it depends on the input.

        A module parameter is seen through reshapes and transpositions (its value is in the shape of the
        parameter itself, transposed if it is seen so); a value that is always the same is a constant Param.
        """
        name, transposed = self._origin(value)
        if name is not None:
            array = self.array(name)
            return Param(part, array.T if transposed else array, name, transposed)
        constant = self.constant(value) if value else None
        return None if constant is None else Param(part, constant, learned=False)

    def array(self, name: str) -> NDArray[Any]:
        """The value of an initializer."""
        return numpy_helper.to_array(self._initializers[name])

    def constant(self, value: str) -> NDArray[Any] | None:
        """The number(s) a value always has, or None if it depends on the input or on a parameter."""
        nodes: list[NodeProto] = []
        seen: set[str] = set()
        if value in self._varying or not self._collect(value, nodes, seen):
            return None
        used = [tensor for name, tensor in self._initializers.items() if name in seen]
        output = helper.make_tensor_value_info(value, TensorProto.UNDEFINED, None)
        graph = helper.make_graph(nodes, "constant", [], [output], used)
        model = helper.make_model(graph, opset_imports=self._model.opset_import)
        (result,) = ReferenceEvaluator(model).run(None, {})
        return np.asarray(result)

    def _collect(self, value: str, nodes: list[NodeProto], seen: set[str]) -> bool:
        if value in seen or not value:
            return True
        seen.add(value)
        if value in self._initializers:
            return value not in self.params
        node = self._producers.get(value)
        if node is None:
            return False
        if node.op_type == "Shape":
            seen.add(node.input[0])
            nodes.append(node)
            return node.input[0] in self._initializers
        if node.op_type == "CastLike":
            kind = self._types.get(node.input[1]) or TensorProto.FLOAT
            node = helper.make_node("Cast", [node.input[0]], list(node.output), to=kind)
        fixed = all(self._collect(name, nodes, seen) for name in node.input)
        nodes.append(node)
        return fixed

    def scope(self, node: NodeProto) -> str:
        """Module path of a node ("conv1", "block.norm"), by the exporter's metadata, else its name."""
        for entry in node.metadata_props:
            if entry.key == _SCOPES:
                with suppress(ValueError, SyntaxError):
                    path = ast.literal_eval(entry.value)
                    return str(path[-2] or path[-1])
        return str(node.name)

    def has_scope(self, node: NodeProto) -> bool:
        """Whether the exporter noted the module path of a node."""
        return any(entry.key == _SCOPES for entry in node.metadata_props)

    def described(self, node: NodeProto) -> str:
        """How refusals name a node: its name, operator, module path, and line in the user's code where known."""
        traces = [entry.value for entry in node.metadata_props if entry.key == _TRACE]
        line = line_in_trace(traces[0]) if traces else ""
        scope = self.scope(node)
        of = f" of module {scope!r}" if scope and scope != node.name else ""
        return f"node {node.name or node.output[0]!r} ({node.op_type}){of}{f' at {line}' if line else ''}"

    def param_shape(self, name: str) -> Shape:
        """Shape of a parameter."""
        return tuple(self._initializers[name].dims)


def _varying(nodes: list[NodeProto], changing: set[str]) -> set[str]:
    """Values that depend on the ones given; a cast does not depend on what it makes a value like."""
    found = set(changing)
    for node in nodes:
        if found.intersection(node.input[:1] if node.op_type == "CastLike" else node.input):
            found.update(node.output)
    return found


def _text(shape: Shape | None) -> str:
    return "not known" if shape is None else f"({', '.join(map(str, shape))})"


def _swaps(node: NodeProto) -> bool:
    """Whether a node swaps the two axes of a matrix."""
    return node.op_type == "Transpose" and list(attributes(node).get("perm", [1, 0])) == [1, 0]


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values; strings are decoded, tensors become arrays."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def _shape(info: ValueInfoProto, batch: int | str) -> Shape:
    """The axes; the one that is the input's batch is "N", other axes without a fixed size keep their expression."""
    return tuple(BATCH if axis == batch and isinstance(axis, str) else axis for axis in _dims(info))


def _dims(info: ValueInfoProto) -> Shape:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in dims)
