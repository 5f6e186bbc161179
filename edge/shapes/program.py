"""The check of a whole program that comes from a file."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import BundleError
from ..program import BATCH, Op, Program, Tensor
from .call import LONGEST, Call
from .table import RULES

GIVEN_ROLES = ("param", "step-size", "attention-param", "input")
LOWERED = ("Zero", "SelectChannels", "Quantise", "Dequantise")
LOWERED_SUFFIX = "Sparse"
LOWERED_DTYPES = ("uint16",)
LOSSES = (
    "SoftmaxCrossEntropy",
    "MeanSquaredError",
    "CategoricalPolicyGradient",
    "GaussianPolicyGradient",
    "GaussianLogStdGrad",
)


def check_operands(op: Op, tensors: Mapping[str, Tensor]) -> None:
    """Check one operation of a program, or of an outline of lowering.

    Args:
        op: its operands are in `tensors`.
        tensors: by name; the batch is the first axis or none.

    Raises:
        BundleError: an operation that does not exist, or whose number of operands, types, shapes or attributes do
            not fit: operation, layer, tensor, what was found and what was expected.
    """
    rule = RULES.get(op.kind)
    if rule is None:
        raise BundleError(
            f"program: {op.kind!r} of layer {op.layer!r} is no operation; export the bundle again"
        )
    rule.check(Call(op, rule.signature, tensors))


def check_shapes(program: Program) -> None:
    """Check every tensor and operation of a program that `check_program` has passed.

    Raises:
        BundleError: as `check_operands`; also a tensor whose shape cannot be, an operation that only lowering
            writes, one that writes a given tensor, and inputs, outputs or layers that do not fit the operations.
    """
    _check_operations(program, ("images", "sample_weight"), ("logits", "loss"))
    _check_layers(program)


def check_forward(program: Program, outputs: tuple[str, ...]) -> None:
    """Check a program that is only a forward section, from `images` to some outputs.

    Raises:
        BundleError: as `check_shapes`.
    """
    if odd := sorted(set(program.sections) - {"forward"}):
        raise BundleError(f"program: sections {odd}, expected forward only; export the bundle again")
    _check_operations(program, ("images",), outputs)
    written = {name for op in program.ops() for name in op.outputs}
    if missing := sorted({program.outputs[name] for name in outputs} - written):
        raise BundleError(f"program: no operation writes the output {missing[0]!r}; export the bundle again")
    for layer in program.layers:
        for name in layer.params:
            if name not in program.tensors or program.tensors[name].role != "param":
                raise BundleError(f"program: layer {layer.name!r} has no parameter {name!r}; export again")


def _check_operations(program: Program, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    for tensor in program.tensors.values():
        _check_tensor(tensor)
    _check_ends(program, {"inputs": inputs, "outputs": outputs})
    for op in program.ops():
        if op.kind in LOWERED or op.kind.endswith(LOWERED_SUFFIX):
            raise BundleError(
                f"program: {op.kind} of layer {op.layer!r} is for lowering only; export the bundle again"
            )
        check_operands(op, program.tensors)
        _check_written(op, program)
        if op.kind in LOSSES:
            _check_loss(op, program)


def _check_tensor(tensor: Tensor) -> None:
    lengths = tensor.shape[1:] if tensor.batched else tensor.shape
    given_once = tensor.role in GIVEN_ROLES[:3]
    if any(isinstance(axis, (str, bool)) or not 1 <= axis <= LONGEST for axis in lengths):
        expected = f"axes of 1 to {LONGEST}, {BATCH} as the first or nowhere"
    elif given_once and (tensor.batched or tensor.dtype != "float32"):
        expected = f"float32 without {BATCH}"
    elif tensor.dtype in LOWERED_DTYPES:
        expected = "another type, this one is for lowering only"
    else:
        return
    raise BundleError(
        f"program: {tensor.role} {tensor.name!r} is {tensor.dtype} of shape {list(tensor.shape)}, expected"
        f" {expected}; export the bundle again"
    )


def _check_ends(program: Program, needed: Mapping[str, tuple[str, ...]]) -> None:
    """Inputs and outputs are tensors, and those that are needed are there."""
    for what, ends in (("input", program.inputs), ("output", program.outputs)):
        for part, name in ends.items():
            if not isinstance(name, str) or name not in program.tensors:
                raise BundleError(
                    f"program: {what} {part!r} is {name!r}, expected a tensor; export the bundle again"
                )
    for part, found in (("inputs", program.inputs), ("outputs", program.outputs)):
        if missing := sorted(set(needed[part]) - set(found)):
            raise BundleError(f"program: {part} lack {', '.join(missing)}; export the bundle again")


def _check_written(op: Op, program: Program) -> None:
    for name in filter(None, op.outputs):
        if program.tensors[name].role in GIVEN_ROLES:
            raise BundleError(
                f"program: {op.kind} of layer {op.layer!r} writes {name!r}, whose role is"
                f" {program.tensors[name].role}; export the bundle again"
            )


def _check_loss(op: Op, program: Program) -> None:
    """A loss is of the outputs, and reads what a support set is checked for: a label is a place in the outputs."""
    logits, read = program.tensors[program.outputs["logits"]], program.tensors[op.inputs[0]]
    if read.shape != logits.shape:
        raise BundleError(
            f"program: {op.kind} of layer {op.layer!r} reads {read.name!r} of shape {list(read.shape)}, expected that"
            f" of the outputs {logits.name!r}, {list(logits.shape)}; export the bundle again"
        )
    for name in op.inputs[1:]:
        if program.tensors[name].role == "input" and name not in program.inputs.values():
            raise BundleError(
                f"program: {op.kind} of layer {op.layer!r} reads {name!r}, expected one of the inputs"
                f" {sorted(program.inputs.values())}; export the bundle again"
            )


def _check_layers(program: Program) -> None:
    """Every gradient is like its parameter, every layer has a column of step sizes."""
    columns = {tensor.shape[-1] for tensor in program.with_role("step-size")}
    for layer in program.layers:
        if len(layer.params) != len(layer.grads) or not all(0 <= layer.index < int(n) for n in columns):
            raise BundleError(
                f"program: layer {layer.name!r} has {len(layer.params)} parameters, {len(layer.grads)} gradients and"
                f" column {layer.index} of {sorted(columns, key=str)} step sizes; export the bundle again"
            )
        for pair in zip(layer.params, layer.grads, strict=True):
            found = [program.tensors.get(name) for name in pair]
            if None in found or len({tensor.shape for tensor in found if tensor}) != 1:
                shapes = [list(tensor.shape) if tensor else "no tensor" for tensor in found]
                raise BundleError(
                    f"program: layer {layer.name!r}: gradient {pair[1]!r} has shape {shapes[1]}, expected that of"
                    f" {pair[0]!r}, {shapes[0]}; export the bundle again"
                )
