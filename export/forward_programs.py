"""Captured networks as the programs of a bundle that adapts by forward passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from ..edge.bundle.streams import FEATURES, FILM_LAYER, LINEAR, LOGITS, MAHALANOBIS, OUTPUTS
from ..edge.program import Layer, Op, Program, Tensor
from .errors import ExportError
from .network import Array, Network
from .passes import EliminateDeadCode, apply

HEAD = "head"
Values = Mapping[str, Array]


def without_classifier(network: Network) -> Network:
    """Leave the last fully connected layer away: its input is the new output.

    Raises:
        ExportError: the network does not end in one.
    """
    program = network.program
    last = next((op for op in program.ops() if program.outputs[LOGITS] in op.outputs), None)
    if last is None or last.kind != "Fc":
        found = "nothing" if last is None else f"{last.kind} of {last.layer!r}"
        raise ExportError(f"cut_classifier: the model ends in {found}, expected a fully connected layer")
    if len(program.sections["forward"]) < 2:
        raise ExportError(
            f"cut_classifier: {last.layer!r} is all there is, nothing makes features before it; the samples"
            " themselves cannot be the features"
        )
    shorter = apply(EliminateDeadCode((last.inputs[0],)), program).program
    kept = replace(
        shorter,
        layers=tuple(layer for layer in program.layers if set(layer.params) <= set(shorter.tensors)),
        outputs={LOGITS: last.inputs[0]},
    )
    values = {name: value for name, value in network.values.items() if name in kept.tensors}
    return replace(network, program=kept, values=values)


def main_program(
    network: Network, films: Collection[str], classes: int, measures_distance: bool
) -> tuple[Program, Values]:
    """Put a head behind an extractor; its parameters, which a device computes, are 0.

    Raises:
        ExportError: the output is no vector, or a film is not found as a scale and shift per channel.
    """
    program = network.program
    features = program.tensors[program.outputs[LOGITS]]
    if len(features.shape) != 2:
        raise ExportError(
            f"the extractor's outputs have shape {list(features.shape)}, expected one vector of features a sample;"
            " pool and flatten them"
        )
    head = _head(program, int(features.shape[1]), classes, measures_distance)
    params = [head.tensor(part) for part in head.shapes]
    layers = [_film(program, name, index) for index, name in enumerate(films)]
    kind, operation = (MAHALANOBIS, "Mahalanobis") if measures_distance else (LINEAR, "Fc")
    names = tuple(tensor.name for tensor in params)
    layers.append(Layer(head.name, kind, names, (), len(layers)))
    op = Op(operation, (features.name, *names), (LOGITS,), head.name)
    logits = Tensor(LOGITS, ("N", classes))
    built = replace(
        program,
        tensors={**program.tensors, **{tensor.name: tensor for tensor in (*params, logits)}},
        sections={"forward": (*program.sections["forward"], op)},
        layers=tuple(layers),
        outputs={FEATURES: features.name, LOGITS: LOGITS},
        steps=1,
    )
    zeros = {tensor.name: np.zeros(tensor.concrete(1), np.float32) for tensor in params}
    return built, {**network.values, **zeros}


class _Head:
    """Name and parameters of a head; one that is in use already gets a number."""

    def __init__(self, program: Program, shapes: Mapping[str, tuple[int, ...]]) -> None:
        taken, self.shapes = set(program.tensors), shapes
        names = (HEAD, *(f"{HEAD}{number}" for number in range(2, len(taken) + 3)))
        self.name = next(name for name in names if not any(f"{name}.{part}" in taken for part in shapes))

    def tensor(self, part: str) -> Tensor:
        """One of the parameters."""
        return Tensor(f"{self.name}.{part}", self.shapes[part], role="param")


def _head(program: Program, width: int, classes: int, measures_distance: bool) -> _Head:
    if measures_distance:
        return _Head(program, {"means": (classes, width), "factors": (classes, width, width)})
    return _Head(program, {"weight": (classes, width), "bias": (classes,)})


def _film(program: Program, name: str, index: int) -> Layer:
    wanted = (f"{name}.scale", f"{name}.shift")
    for op in program.ops():
        if op.kind == "Affine" and op.inputs[1:] == wanted and op.attrs["axis"] == 1:
            return Layer(name, FILM_LAYER, wanted, (), index)
    raise ExportError(
        f"film {name!r}: expected a module with parameters scale and shift, y = x * scale + shift per channel"
    )


def part_program(network: Network, part: str) -> tuple[Program, Values]:
    """Name a network as a part of a bundle: every tensor begins with PART::."""
    program = network.program

    def named(name: str) -> str:
        return f"{part}::{name}" if name else ""

    ops = tuple(
        replace(op, inputs=tuple(map(named, op.inputs)), outputs=tuple(map(named, op.outputs)))
        for op in program.sections["forward"]
    )
    tensors = {named(t.name): replace(t, name=named(t.name)) for t in program.tensors.values()}
    inputs = {key: named(name) for key, name in program.inputs.items()}
    outputs = {OUTPUTS[part]: named(program.outputs[LOGITS])}
    built = Program(tensors, {"forward": ops}, (), inputs, outputs, 1)
    return built, {named(name): value for name, value in network.values.items()}
