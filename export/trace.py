"""torch.export on a module, and its refusals in one line each: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.nn.parameter import is_lazy

from ..edge.program import BATCH
from .errors import ExportError
from .source_line import line_in_trace, line_of_error

SAMPLES = 2


def trace(module: nn.Module, sample_shape: tuple[int, ...]) -> ExportedProgram:
    """Trace a float32 module in evaluation mode for any batch size.

    Raises:
        ExportError: torch cannot trace it, or the graph computes what a program cannot say: state that changes,
            gradients that stop, several outputs.
    """
    sample = torch.zeros(SAMPLES, *sample_shape)
    try:
        program = torch.export.export(module, (sample,), dynamic_shapes=({0: Dim(BATCH)},), strict=False)
    except Exception as error:
        raise ExportError(explain(module, error)) from error
    _check_outputs(module, program)
    _check_use(module, program)
    _check_state(module, program)
    _check_gradients(module, program)
    return program


def check_parameters(module: nn.Module) -> None:
    """Raise ExportError if there is nothing to learn, if a parameter is no real array, or if two layers share one."""
    names: dict[int, str] = {}
    parts = ((f"{path}.".lstrip("."), part) for path, part in module.named_modules())
    for name, parameter in ((path + name, p) for path, part in parts for name, p in part._parameters.items()):
        other = name if parameter is None else names.setdefault(id(parameter), name)
        if other != name:
            raise ExportError(
                f"{type(module).__name__}: parameters {other!r} and {name!r} are one tensor; every layer must be used "
                "exactly once: give the second place a copy of its own"
            )
    for name, parameter in module.named_parameters():
        if is_lazy(parameter) or not parameter.is_floating_point():
            kind = (
                "not initialised; run the module once"
                if is_lazy(parameter)
                else f"{parameter.dtype}; use real ones"
            )
            raise ExportError(f"{type(module).__name__}: parameter {name!r} is {kind}")
    if not names:
        raise ExportError(
            f"{type(module).__name__}: the module has no parameters; export one that computes something learned"
        )


def explain(module: nn.Module, error: BaseException) -> str:
    """One line for an error of torch.export, or of the module's own code."""
    cause = _root(error)
    if isinstance(cause, ExportError):
        return str(cause)
    name, text = type(cause).__name__, " ".join(str(cause).split())
    path = _module_path(module, cause)
    own = line_in_trace(str(cause)) or line_of_error(cause.__traceback__)
    at = f"{type(module).__name__}{f', module {path!r}' if path else ''}{f' at {own}' if own else ''}: "
    for sign, meaning in _MEANINGS.items():
        if sign in name or sign in text:
            return at + meaning
    return f"{at}torch cannot export this module ({name}: {shorten(text, 160)})"


_MEANINGS: Mapping[str, str] = {
    "DataDependent": "it decides or computes sizes by the values of its data, which a fixed graph cannot; "
    "compute every case and mix them, or decide before the export",
    "specialized it to be a constant": "it works for one batch size only; write x.shape[0], -1 or flatten(1) "
    "instead of a number or len(x), also in reshape and expand",
    "missing a required argument": "it takes more than one input; wrap it in a module that takes one tensor",
    "too many positional arguments": "it takes no input tensor; wrap it in a module that takes one tensor",
    "scalar types: Long, Int": "it looks up integers; start at the embedding's output and give that as float32 input",
    "tensors used as indices": "it looks up integers; start at the embedding's output and give that as float32 input",
    ".numpy() is not supported": "it leaves torch for numpy; compute with torch operations only",
    "same reduction dim": "sizes do not fit; give an example input of the shape that the module takes",
    "shapes cannot be multiplied": "sizes do not fit; give an example input of the shape that the module takes",
    "channels, but got": "sizes do not fit; give an example input of the shape that the module takes",
}


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _module_path(module: nn.Module, error: BaseException) -> str:
    """Path of the innermost sub-module whose code an exception passed through."""
    names = {id(part): name for name, part in module.named_modules()}
    path, frame = "", error.__traceback__
    while frame is not None:
        path = names.get(id(frame.tb_frame.f_locals.get("self")), "") or path
        frame = frame.tb_next
    return path


def place(node: fx.Node) -> str:
    """ ", module 'path', FILE:LINE (`code`)" of a traced node, as far as they are known."""
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    path = next((name for name, _ in reversed(list(stack.values())) if name), "")
    line = line_in_trace(node.meta.get("stack_trace") or "")
    return f"{f', module {path!r}' if path else ''}{f' at {line}' if line else ''}"


def _check_outputs(module: nn.Module, program: ExportedProgram) -> None:
    outputs, form = program.graph_signature.user_outputs, program.call_spec.out_spec
    packed = form is not None and not form.is_leaf()
    if len(outputs) != 1 or not isinstance(outputs[0], str) or packed:
        one = f"a {getattr(form.type, '__name__', form.type)}" if packed and form else "1 value"
        returned = "nothing" if outputs in ((), (None,)) else f"{len(outputs)} values" if outputs[1:] else one
        raise ExportError(
            f"{type(module).__name__}: it returns {returned}; wrap it in a module that returns one tensor"
        )


def _check_use(module: nn.Module, program: ExportedProgram) -> None:
    reached = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        is_size = isinstance(node.meta.get("val"), (int, torch.SymInt))
        if not is_size and reached.intersection(part.name for part in node.all_input_nodes):
            reached.add(node.name)
    if not reached.intersection(program.graph_signature.user_outputs):
        raise ExportError(f"{type(module).__name__}: its output does not depend on its input")


def _check_state(module: nn.Module, program: ExportedProgram) -> None:
    buffers = program.graph_signature.inputs_to_buffers
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable or not node.all_input_nodes:
            continue
        name = buffers.get(_base(node.all_input_nodes[0]).name)
        if name is not None:
            raise ExportError(
                f"{type(module).__name__}{place(node)}: it changes its buffer {name!r}, so that outputs depend on "
                "earlier ones; switch that off in evaluation mode"
            )


def _base(node: fx.Node) -> fx.Node:
    """What a chain of views looks at."""
    while node.op == "call_function" and getattr(node.target, "is_view", False) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _check_gradients(module: nn.Module, program: ExportedProgram) -> None:
    """Gradients flow through all of a program: refuse where the module stops those of a parameter."""
    learned = set(program.graph_signature.inputs_to_parameters)
    for node in program.graph.nodes:
        if node.op != "call_function" or not learned.intersection(part.name for part in node.all_input_nodes):
            continue
        learned.add(node.name)
        if str(node.target) in ("aten.detach.default", "wrap_with_set_grad_enabled"):
            raise ExportError(
                f"{type(module).__name__}{place(node)}: it stops gradients (detach, .data or no_grad); remove that and "
                "freeze the layers before it instead"
            )
