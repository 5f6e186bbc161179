"""A forward ONNX graph becomes the forward section of a program."""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from ..edge.program import Layer, Op, Program, Tensor
from .errors import ExportError
from .forward_graph import ForwardGraph
from .ops import RULES, Match, Rule

INPUT = "images"
_RESERVED = ("labels", "sample_weight", "class_mask", "loss", "logits", "alpha", "step")
_Found = tuple[NodeProto, Rule, Match]


def import_forward(model: ModelProto, params: frozenset[str], layer_names: tuple[str, ...] = ()) -> Program:
    """Recognise every operation of a forward graph, backwards from its output.

    Args:
        model: opset 18, one input (the images), one output (the logits).
        params: initializers that are parameters; they are named LAYER.NAME.
        layer_names: as for `capture`.

    Raises:
        ExportError: naming the node, its operator and module path.
    """
    graph = ForwardGraph(model, params)
    tensors = {INPUT: Tensor(INPUT, graph.shape(graph.input), role="input")}
    tensors.update(
        (name, Tensor(name, graph.param_shape(name), role="param")) for name in sorted(graph.params)
    )
    names = {graph.input: INPUT}
    ops = [_program_op(graph, names, tensors, found) for found in _recognise(graph)]
    logits = names[graph.resolve(graph.output)]
    if len(tensors[logits].shape) != 2:
        raise ExportError(
            f"the module's output has shape {tensors[logits].shape}; expected logits (N, classes)"
        )
    used = {name for op in ops for name in (*op.inputs, *op.outputs)}
    return Program(
        tensors={name: tensor for name, tensor in tensors.items() if name in used},
        sections={"forward": tuple(ops)},
        layers=_layers(ops, layer_names),
        inputs={INPUT: INPUT},
        outputs={"logits": logits},
        steps=0,
    )


def _recognise(graph: ForwardGraph) -> list[_Found]:
    found: dict[str, _Found] = {}
    open_values = [graph.resolve(graph.output)]
    while open_values:
        value = open_values.pop()
        if value == graph.input or value in found:
            continue
        node = graph.producer(value)
        if node is None:
            raise ExportError(f"the logits depend on {value!r}, a value that is neither input nor parameter")
        found[value] = (node, *_best(graph, node))
        open_values += [graph.resolve(name) for name in found[value][2].inputs]
    return [found[value] for value in sorted(found, key=graph.position)]


def _best(graph: ForwardGraph, node: NodeProto) -> tuple[Rule, Match]:
    matches = [(rule, rule.match(graph, node)) for rule in RULES.values() if rule.match]
    fitting = [(rule, match) for rule, match in matches if match]
    if not fitting:
        known = ", ".join(rule.kind for rule in RULES.values() if rule.match)
        raise ExportError(
            f"node {node.name!r} ({node.op_type}) of module {graph.scope(node)!r} is not supported; "
            f"rewrite it with the supported operations: {known}"
        )
    return max(fitting, key=lambda pair: pair[1].nodes)


def _program_op(graph: ForwardGraph, names: dict[str, str], tensors: dict[str, Tensor], found: _Found) -> Op:
    """Make the operation; its output is named after its module, other outputs MODULE::SUFFIX."""
    node, rule, match = found
    path = graph.scope(node)
    layer = _layer_name(match, path) if rule.layer_kind else path
    output = _unused(layer, tensors)
    names[node.output[0]] = output
    tensors[output] = Tensor(output, graph.shape(node.output[0]))
    extras = [Tensor(f"{output}::{extra.suffix}", extra.shape, extra.dtype) for extra in match.extras]
    tensors.update((tensor.name, tensor) for tensor in extras)
    inputs = (*(names[graph.resolve(name)] for name in match.inputs), *match.params)
    return Op(rule.kind, inputs, (output, *(tensor.name for tensor in extras)), layer, dict(match.attrs))


def _layer_name(match: Match, path: str) -> str:
    owners = {param.rpartition(".")[0] for param in match.params if param}
    if len(owners) != 1 or "" in owners:
        raise ExportError(
            f"module {path!r}: weight and bias must be parameters of one named sub-module, got {match.params}"
        )
    return owners.pop()


def _unused(name: str, tensors: dict[str, Tensor]) -> str:
    candidates = (name, *(f"{name}.{count}" for count in range(2, len(tensors) + 3)))
    return next(name for name in candidates if name not in tensors and name not in _RESERVED)


def _layers(ops: list[Op], layer_names: tuple[str, ...]) -> tuple[Layer, ...]:
    """The layer table in forward order; `index` is the place among layer_names."""
    layers: list[Layer] = []
    for op in ops:
        kind = RULES[op.kind].layer_kind
        if kind is None:
            continue
        if any(layer.name == op.layer for layer in layers):
            raise ExportError(
                f"layer {op.layer!r} is used more than once; every layer must be used exactly once"
            )
        params = tuple(filter(None, op.inputs[1:]))
        index = layer_names.index(op.layer) if op.layer in layer_names else len(layers)
        layers.append(Layer(op.layer, kind, params, tuple(f"grad::{name}" for name in params), index))
    names = {layer.name for layer in layers}
    if not layers or (layer_names and names != set(layer_names)):
        expected = ", ".join(layer_names) or "at least one"
        raise ExportError(
            f"layers expected: {expected}; found in the graph: {', '.join(sorted(names)) or 'none'}"
        )
    return tuple(layers)
