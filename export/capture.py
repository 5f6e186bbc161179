"""A torch module becomes the forward section of a program, by way of the dynamo ONNX exporter."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from textwrap import shorten

import torch
from onnx import ModelProto
from torch import nn

from ..edge.program import BATCH
from .errors import ExportError
from .network import Network
from .onnx_import import import_forward

OPSET = 18


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
    return import_forward(to_onnx(module, sample_shape), params, layer_names)


def to_onnx(module: nn.Module, sample_shape: tuple[int, ...]) -> ModelProto:
    """Run the dynamo exporter on a float32 copy in evaluation mode; its warnings and log lines are silenced.

    Raises:
        ExportError: what the exporter cannot trace, in one line.
    """
    plain = copy.deepcopy(module).to("cpu", torch.float32).eval()
    sample = torch.zeros(2, *sample_shape)
    try:
        with _quiet():
            exported = torch.onnx.export(
                plain,
                (sample,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        cause = _root(error)
        text = shorten(str(cause), 200)
        raise ExportError(
            f"{type(module).__name__}: torch cannot export this module ({type(cause).__name__}: {text})"
        ) from error
    if exported is None:
        raise ExportError(f"{type(module).__name__}: torch's exporter returned nothing")
    return exported.model_proto


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


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
