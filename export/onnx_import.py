"""A forward ONNX graph becomes the forward section of a program."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from ..edge.program import Layer, Op, Program, Tensor
from .errors import ExportError
from .forward_graph import ForwardGraph
from .network import Array, Network, Origin
from .ops import RULES, Match, Param, Rule

INPUT = "images"
_RESERVED = ("labels", "sample_weight", "class_mask", "loss", "logits", "alpha", "step")
_Found = tuple[NodeProto, Rule, Match]


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
    for found in recognise(graph):
        work.add(*found)
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
    return Network(program, work.values, work.origins)


def recognise(graph: ForwardGraph) -> list[_Found]:
    """The operations that the output needs, in execution order; raises ExportError at the first unknown one."""
    found: dict[str, _Found] = {}
    open_values = [graph.resolve(graph.output)]
    while open_values:
        value = open_values.pop()
        if value == graph.input or value in found:
            continue
        node = graph.producer(value)
        if node is None:
            raise ExportError(f"the output depends on {value!r}, a value that is neither input nor parameter")
        found[value] = (node, *best_match(graph, node))
        open_values += [graph.resolve(name) for name in found[value][2].inputs]
    return [found[value] for value in sorted(found, key=graph.position)]


def best_match(graph: ForwardGraph, node: NodeProto) -> tuple[Rule, Match]:
    """The rule that takes a node; among several the one that explains most nodes.

    Raises:
        ExportError: no rule does.
    """
    matches = [(rule, rule.match(graph, node)) for rule in RULES.values() if rule.match]
    fitting = [(rule, match) for rule, match in matches if match]
    if not fitting:
        known = ", ".join(rule.kind for rule in RULES.values() if rule.match)
        raise ExportError(
            f"node {node.name!r} ({node.op_type}) of module {graph.scope(node)!r} is not supported; "
            f"rewrite it with the supported operations: {known}"
        )
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
    owners: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors[INPUT] = Tensor(INPUT, self.graph.shape(self.graph.input), role="input")
        self.names[self.graph.input] = INPUT

    def add(self, node: NodeProto, rule: Rule, match: Match) -> None:
        """Make the operation; its output is named after its layer or module, other outputs OUTPUT::SUFFIX."""
        path = self.graph.scope(node) or node.output[0]
        learned = [param for param in match.params if param and param.learned]
        layer = self._layer_name(learned, path) if learned else path
        output = self._unused(layer)
        self.names[node.output[0]] = output
        self.tensors[output] = Tensor(output, self.graph.shape(node.output[0]))
        extras = [Tensor(f"{output}::{extra.suffix}", extra.shape, extra.dtype) for extra in match.extras]
        self.tensors.update((tensor.name, tensor) for tensor in extras)
        params = [self._param(param, layer) if param else "" for param in match.params]
        inputs = (*(self.names[self.graph.resolve(name)] for name in match.inputs), *params)
        outputs = (output, *(tensor.name for tensor in extras))
        self.ops.append(Op(rule.kind, inputs, outputs, layer, dict(match.attrs)))

    def _layer_name(self, learned: list[Param], path: str) -> str:
        """The sub-module that owns exactly these parameters, else the parameter's own name, else the path."""
        sources = {param.source for param in learned if param.source}
        owners = {source.rpartition(".")[0] for source in sources}
        owner = owners.pop() if len(owners) == 1 else ""
        if owner and {name for name in self.graph.params if name.rpartition(".")[0] == owner} <= sources:
            return owner
        return next(iter(sources)) if len(sources) == 1 and "." in next(iter(sources)) else path

    def _param(self, param: Param, layer: str) -> str:
        name = param.source or self._unused(f"{layer}.{param.part}")
        if param.learned and name in self.owners:
            raise ExportError(
                f"parameter {name!r} is used more than once (by {self.owners[name]!r} and {layer!r}); every layer "
                "must be used exactly once: give the second place a copy of its own"
            )
        if not param.learned:
            name = self._unused(f"{layer}.{param.part}")
        self.tensors[name] = Tensor(name, tuple(param.value.shape), role="param")
        self.values[name] = np.ascontiguousarray(param.value, np.float32)
        if param.learned:
            self.owners[name] = layer
            self.origins[name] = Origin(param.source, param.transposed)
        return name

    def _unused(self, name: str) -> str:
        candidates = (name, *(f"{name}.{count}" for count in range(2, len(self.tensors) + 3)))
        return next(name for name in candidates if name not in self.tensors and name not in _RESERVED)


def _layers(work: _Import, layer_names: tuple[str, ...]) -> tuple[Layer, ...]:
    """The layer table in forward order; `index` is the place among layer_names."""
    layers: list[Layer] = []
    for op in work.ops:
        params = tuple(name for name in op.inputs if name in work.owners)
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
    if not layers or (layer_names and names != set(layer_names)):
        expected = ", ".join(layer_names) or "at least one"
        raise ExportError(
            f"layers expected: {expected}; found in the graph: {', '.join(sorted(names)) or 'none'}"
        )
    return tuple(layers)
