"""A torch module becomes the forward section of a program, by way of the dynamo ONNX exporter."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from onnx import ModelProto
from torch import nn
from torch.export import ExportedProgram

from .converters.replace import evaluated_copy
from .errors import ExportError
from .network import Network
from .onnx_import import import_forward
from .reading.shapes import with_shapes
from .trace import check_parameters, explain, place, trace

OPSET = 18
_NODE = re.compile(r"%(?P<name>\w+) :.*?call_function\[target=(?P<target>[\w.]+)\]")


def capture(module: nn.Module, sample_shape: tuple[int, ...], layer_names: tuple[str, ...] = ()) -> Network:
    """Capture a module.

    Args:
        module: samples (N, *sample_shape) to logits (N, classes), in any dtype; it is not changed.
        sample_shape: shape of one sample, (C, H, W) for images.
        layer_names: layers in the order of the step-size table; the order of execution when empty.

    Returns:
        A program with a forward section only, and its parameters, which keep their torch names.

    Raises:
        ExportError: the exporter fails, or the graph holds what no rule recognises; names the node.
    """
    params = frozenset(name for name, _ in module.named_parameters())
    name = Path(type(module).__name__)
    model = with_shapes(name, to_onnx(module, sample_shape), params, sample_shape)
    return import_forward(model, params, layer_names)


def to_onnx(module: nn.Module, sample_shape: tuple[int, ...]) -> ModelProto:
    """Run the dynamo exporter on a float32 copy in evaluation mode; its warnings and log lines are silenced.

    Raises:
        ExportError: what torch cannot trace, or has no ONNX operator for, in one line.
    """
    check_parameters(module)
    plain = evaluated_copy(module).to("cpu", torch.float32)
    with _quiet():
        program = trace(plain, sample_shape)
        try:
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False
            )
        except Exception as error:
            raise ExportError(_no_operator(module, program, error)) from error
    if exported is None:
        raise ExportError(f"{type(module).__name__}: torch's exporter returned nothing")
    return _with_first_names(module, exported.model_proto)


def _with_first_names(module: nn.Module, model: ModelProto) -> ModelProto:
    """Rename parameters of parts that are registered twice: the exporter takes any of their names."""
    first = {id(parameter): name for name, parameter in module.named_parameters()}
    names = {other: first[id(p)] for other, p in module.named_parameters(remove_duplicate=False)}
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return model


def _no_operator(module: nn.Module, program: ExportedProgram, error: Exception) -> str:
    """The exporter's error in one line, with the traced node it speaks of."""
    found = _NODE.search(str(error))
    if found is None:
        return explain(module, error)
    nodes = {node.name.replace("_", ""): node for node in program.graph.nodes}
    node = nodes.get(found["name"].replace("_", ""))
    at = "" if node is None else place(node)
    return (
        f"{type(module).__name__}{at}: {found['target']} has no ONNX operator; "
        "rewrite it with supported operations (docs/program.md lists them)"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter for the duration: what it prints and logs, and Python warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
