"""A forward ONNX graph becomes the forward section of a program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from ..edge.program import Layer, Op, Program, Tensor
from .errors import ExportError
from .network import Array, Network, Origin
from .ops import RULES, Match, Param, Rule
from .reading.graph import ForwardGraph
from .suggestions import SUGGESTIONS, suggestion

INPUT = "images"
_RESERVED = (
    *("labels", "targets", "actions", "advantages", "sample_weight", "class_mask"),
    *("loss", "logits", "alpha", "step"),
)
Found = tuple[NodeProto, Rule, Match]


def import_forward(model: ModelProto, params: frozenset[str], layer_names: tuple[str, ...] = ()) -> Network:
    """Recognise every operation of a forward graph, backwards from its output.

    Args:
        model: opset 18, one input (the samples), one output (the logits).
        params: initializers that are parameters, preferably named LAYER.NAME.
        layer_names: as for `capture`.

    Raises:
        ExportError: naming the node, its operator and module path.
    """
    graph = ForwardGraph(model, params)
    work = _Import(graph)
    found = recognise(graph)
    for node, rule, match in found:
        work.add(node, rule, match)
    logits = work.names[graph.resolve(graph.output)]
    used = {name for op in work.ops for name in (*op.inputs, *op.outputs)}
    program = Program(
        tensors={name: tensor for name, tensor in work.tensors.items() if name in used},
        sections={"forward": tuple(work.ops)},
        layers=_layers(work, layer_names),
        inputs={INPUT: INPUT},
        outputs={"logits": logits},
        steps=0,
    )
    return Network(program, work.values, work.origins, _notes(graph, found))


def _notes(graph: ForwardGraph, found: list[Found]) -> tuple[str, ...]:
    """What people should know about the nodes: whose statistics are fixed from now on."""
    norms = [node for node, _, _ in found if node.op_type == "BatchNormalization"]
    return tuple(
        f"{graph.scope(node) or node.output[0]} (BatchNormalization): running statistics folded into a fixed scale "
        "and shift"
        for node in norms
    )


def recognise(graph: ForwardGraph) -> list[Found]:
    """The operations that the output needs, in execution order.

    Raises:
        ExportError: at the first node that no rule takes; one that has a known substitute goes first, since what is
            around it is often only its packaging.
    """
    found, refused = survey(graph)
    if refused:
        raise min(refused, key=lambda refusal: refusal.node.op_type not in SUGGESTIONS).error
    return found


@dataclass(frozen=True)
class Refused:
    """A node that the output needs and no rule takes."""

    node: NodeProto
    error: ExportError


def survey(graph: ForwardGraph) -> tuple[list[Found], list[Refused]]:
    """Everything the output needs, in execution order: what rules take, and what none takes (with all it reads)."""
    found: dict[str, Found] = {}
    refused: dict[str, Refused] = {}
    open_values = [graph.resolve(graph.output)]
    while open_values:
        value = open_values.pop()
        if value == graph.input or value in found or value in refused:
            continue
        node = graph.producer(value)
        if node is None:
            raise ExportError(f"the output depends on {value!r}, a value that is neither input nor parameter")
        try:
            found[value] = (node, *best_match(graph, node))
            reads: Iterable[str] = found[value][2].inputs
        except ExportError as error:
            refused[value] = Refused(node, error)
            reads = filter(graph.is_activation, node.input)
        open_values += [graph.resolve(name) for name in reads]
    in_order = sorted(found, key=graph.position), sorted(refused, key=graph.position)
    return [found[value] for value in in_order[0]], [refused[value] for value in in_order[1]]


def best_match(graph: ForwardGraph, node: NodeProto) -> tuple[Rule, Match]:
    """The rule that takes a node; among several the one that explains most nodes.

    Raises:
        ExportError: no rule does.
    """
    fitting: list[tuple[Rule, Match]] = []
    refusals: list[ExportError] = []
    for rule in RULES.values():
        try:
            match = rule.match(graph, node) if rule.match else None
        except ExportError as error:
            refusals.append(error)
        else:
            fitting += [(rule, match)] if match else []
    if refusals and not fitting:
        raise refusals[0]
    if not fitting:
        raise ExportError(f"{graph.described(node)} is not supported; {suggestion(node.op_type)}")
    return max(fitting, key=lambda pair: pair[1].nodes)


@dataclass
class _Import:
    """A program under construction: ONNX names become module paths."""

    graph: ForwardGraph
    tensors: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    values: dict[str, Array] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors[INPUT] = Tensor(INPUT, self.graph.shape(self.graph.input), role="input")
        self.names[self.graph.input] = INPUT

    def add(self, node: NodeProto, rule: Rule, match: Match) -> None:
        """Make the operation; its output is named after its layer or module, other outputs OUTPUT::SUFFIX."""
        path = self.graph.scope(node) or node.output[0]
        learned = [param for param in match.params if param and param.learned]
        layer = self._layer_name(learned, path, self.graph.has_scope(node)) if learned else path
        params = [self._param(param, layer) if param else "" for param in match.params]
        output = self._unused(layer)
        self.names[node.output[0]] = output
        self.tensors[output] = Tensor(output, self.graph.shape(node.output[0]))
        extras = [Tensor(f"{output}::{extra.suffix}", extra.shape, extra.dtype) for extra in match.extras]
        self.tensors.update((tensor.name, tensor) for tensor in extras)
        inputs = (*(self.names[self.graph.resolve(name)] for name in match.inputs), *params)
        outputs = (output, *(tensor.name for tensor in extras))
        self.ops.append(Op(rule.kind, inputs, outputs, layer, dict(match.attrs)))

    def _layer_name(self, learned: list[Param], path: str, is_traced: bool) -> str:
        """The sub-module that owns exactly these parameters, else the parameter's own name, else the path.

        Names without a dot mean something in a traced module only; those of ONNX files may be any number.
        """
        sources = {param.source for param in learned if param.source}
        owners = {source.rpartition(".")[0] for source in sources}
        owner = owners.pop() if len(owners) == 1 else ""
        if owner and {name for name in self.graph.params if name.rpartition(".")[0] == owner} <= sources:
            return owner
        (source, *others) = sources or {""}
        return source if not others and (is_traced or "." in source) and source else path

    def _param(self, param: Param, layer: str) -> str:
        if param.learned and param.source and param.source in self.users:
            raise ExportError(
                f"parameter {param.source!r} is used more than once (by {self.users[param.source]!r} and {layer!r}); "
                "every layer must be used exactly once: give the second place a copy of its own"
            )
        name = self._unused(param.source if param.learned and param.source else f"{layer}.{param.part}")
        self.tensors[name] = Tensor(name, tuple(param.value.shape), role="param")
        self.values[name] = np.ascontiguousarray(param.value, np.float32)
        if param.learned:
            self.users[param.source] = layer
            self.origins[name] = Origin(param.source, param.transposed)
        return name

    def _unused(self, name: str) -> str:
        candidates = (name, *(f"{name}.{count}" for count in range(2, len(self.tensors) + 3)))
        return next(name for name in candidates if name not in self.tensors and name not in _RESERVED)


def _layers(work: _Import, layer_names: tuple[str, ...]) -> tuple[Layer, ...]:
    """The layer table in forward order; `index` is the place among layer_names."""
    layers: list[Layer] = []
    for op in work.ops:
        params = tuple(name for name in op.inputs if name in work.origins)
        if not params:
            continue
        kind = RULES[op.kind].layer_kind
        if kind is None:
            raise ExportError(
                f"{op.kind} of module {op.layer!r} reads parameter {params[0]!r}; it cannot learn one"
            )
        index = layer_names.index(op.layer) if op.layer in layer_names else len(layers)
        layers.append(Layer(op.layer, kind, params, tuple(f"grad::{name}" for name in params), index))
    names = {layer.name for layer in layers}
    if not layers:
        raise ExportError("the network has no parameters that a layer could learn; export one that has")
    if layer_names and names != set(layer_names):
        raise ExportError(
            f"layers expected: {', '.join(layer_names)}; found in the graph: {', '.join(sorted(names))}"
        )
    return tuple(layers)
