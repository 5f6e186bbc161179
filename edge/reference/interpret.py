"""The simplest execution of a program, by data, every tensor in its own memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import BundleError
from ..program import Op, Program, Tensor
from . import KERNELS
from .kernel import Array, Arrays, Shape, Shapes

PACKED = {"bit1", "bit2", "bit4"}


def interpret(
    program: Program,
    values: Mapping[str, Array],
    outputs: Sequence[str],
    dtype: DTypeLike = np.float32,
    step: int = 0,
) -> dict[str, Array]:
    """Run what `outputs` need and return them by name.

    Args:
        program: the whole adaptation.
        values: parameters, inputs, and any tensor that shall not be computed, converted to its type.
        outputs: names of the tensors wanted.
        dtype: float32 or float64, for every tensor the program calls float32.
        step: row of the step-size table, for SgdUpdate.

    Raises:
        BundleError: an output needs a tensor that is neither given nor computed.
    """
    known = {name: _converted(program.tensors[name], value, dtype) for name, value in values.items()}
    batch = next((known[n].shape[0] for n in known if program.tensors[n].batched), 1)
    for op in _in_data_order(needed(program, known, outputs), known):
        _run(op, program, known, batch, np.dtype(dtype), step)
    return {name: known[name] for name in outputs}


def needed(program: Program, given: Iterable[str], outputs: Sequence[str]) -> list[Op]:
    """Return the operations that `outputs` need, in program order; raises BundleError if one is missing."""
    makers = {name: op for op in program.ops() for name in op.outputs if name}
    wanted, found, have = list(outputs), set(), set(given)
    while wanted:
        name = wanted.pop()
        if name in have:
            continue
        if name not in makers:
            raise BundleError(f"program: tensor {name!r} is neither given nor computed")
        op = makers[name]
        found.add(id(op))
        have.update(filter(None, op.outputs))
        wanted.extend(filter(None, op.inputs))
    return [op for op in program.ops() if id(op) in found]


def _in_data_order(ops: Sequence[Op], known: Iterable[str]) -> Iterator[Op]:
    """Yield the operations so that each follows those whose outputs it reads."""
    ready, waiting = set(known), list(ops)
    while waiting:
        blocked = []
        for op in waiting:
            if ready.issuperset(filter(None, op.inputs)):
                ready.update(filter(None, op.outputs))
                yield op
            else:
                blocked.append(op)
        if len(blocked) == len(waiting):
            raise BundleError(
                f"program: {blocked[0].kind} of layer {blocked[0].layer!r} waits for its own result"
            )
        waiting = blocked


def _run(
    op: Op, program: Program, known: dict[str, Array], batch: int, dtype: np.dtype[Any], step: int
) -> None:
    kernel = KERNELS[op.kind]
    inputs = [known[name] if name else None for name in op.inputs]
    if kernel.alias:
        result = program.tensors[op.outputs[0]]
        known[result.name] = known[op.inputs[0]].reshape(result.concrete(batch))
        return
    outputs = [_allocate(program.tensors[name], batch, dtype) if name else None for name in op.outputs]
    attrs = {**op.attrs, "step": step}
    size_bytes = kernel.workspace_bytes(_shapes(inputs), _shapes(outputs), attrs, dtype.itemsize)
    kernel.run(inputs, outputs, attrs, np.empty(size_bytes, np.uint8))
    known.update({name: array for name, array in zip(op.outputs, outputs, strict=True) if array is not None})


def _shapes(arrays: Arrays) -> Shapes:
    return [None if array is None else array.shape for array in arrays]


def stored_shape(tensor: Tensor, batch: int) -> Shape:
    """Return the shape of the array that holds a tensor: packed types are (N, bytes per sample)."""
    if tensor.dtype in PACKED:
        return (batch, tensor.size_bytes(1))
    return tensor.concrete(batch)


def _dtype(tensor: Tensor, dtype: DTypeLike) -> np.dtype[Any]:
    if tensor.dtype == "float32":
        return np.dtype(dtype)
    return np.dtype(np.uint8 if tensor.dtype in PACKED else tensor.dtype)


def _allocate(tensor: Tensor, batch: int, dtype: DTypeLike) -> Array:
    return np.zeros(stored_shape(tensor, batch), _dtype(tensor, dtype))


def _converted(tensor: Tensor, value: Array, dtype: DTypeLike) -> Array:
    return np.ascontiguousarray(value, _dtype(tensor, dtype))
