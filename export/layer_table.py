"""The layer table of the manifest, from the program."""

from __future__ import annotations

from math import prod

from ..edge.bundle import ManifestLayer
from ..edge.lower.work import step_macs
from ..edge.program import Layer, Op, Program
from .source import Source


def layer_table(source: Source, program: Program) -> tuple[ManifestLayer, ...]:
    """One row per layer, in forward order: words (4 bytes), multiply-accumulates, cap, benefit."""
    ops = {name: op for op in program.ops(("forward", "loss")) for name in op.inputs}
    attended = {op.layer for op in program.ops(("attention",)) if op.outputs[0].startswith("fw::")}
    return tuple(
        _row(source, program, ops[layer.params[0]], layer, layer.name in attended) for layer in program.layers
    )


def _row(source: Source, program: Program, op: Op, layer: Layer, attended: bool) -> ManifestLayer:
    cap = None if source.caps is None or not attended else source.caps[:, layer.index]
    benefit = None if source.benefits is None else source.benefits[:, layer.index]
    shapes = [
        [program.tensors[n].concrete(1) if n else () for n in names] for names in (op.inputs, op.outputs)
    ]
    return ManifestLayer(
        name=layer.name,
        kind=layer.kind,
        weight_words=sum(prod(_fixed(program, name)) for name in layer.params),
        input_words=0 if op.inputs[0] in layer.params else prod(_fixed(program, op.inputs[0])),
        macs=step_macs(op.kind, shapes[0], shapes[1]),
        cap=None if cap is None else tuple(max(1, int(count)) for count in cap),
        benefit=None if benefit is None else tuple(max(0.0, float(value)) for value in benefit),
    )


def _fixed(program: Program, name: str) -> tuple[int, ...]:
    tensor = program.tensors[name]
    return tuple(int(axis) for axis in (tensor.shape[1:] if tensor.batched else tensor.shape))
