"""Sparse channel storage: of an input saved only for a weight gradient, keep the channels attention keeps.

Forward attention `fw` is zero on at least `C - cap` channels of every sample. Where nothing else in the
backward pass reads the input, `SelectChannels` stores the other channels, multiplied by fw, as (N, cap,
...) with their numbers (N, cap), and the weight gradient reads those: the same numbers from fewer bytes.
Inputs with their channels on the last of several axes (tokens) stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..cost import kept_bound
from ..errors import BundleError
from ..program import BATCH, Op, Program, Tensor
from .order import Ordered

_INPUT_POSITION = {"ConvWeightGrad": 0, "FcWeightGrad": 0, "ScaleGrad": 1}


def with_caps(ordered: Ordered, caps: Mapping[str, int]) -> Ordered:
    """Lower the caps of forward attention: `caps` maps ChannelAttention outputs to channels."""
    ops = tuple(
        replace(op, attrs={**op.attrs, "cap": caps[op.outputs[0]]}) if op.outputs[0] in caps else op
        for op in ordered.ops
    )
    return replace(ordered, ops=ops)


def forward_attention(program: Program, ordered: Ordered) -> dict[str, tuple[Op, int]]:
    """Return gamma's name to (ChannelAttention, channels) for attention on inputs of weight gradients."""
    read = {op.inputs[3] for op in ordered.ops if op.kind in _INPUT_POSITION and len(op.inputs) > 3}
    return {
        op.outputs[0]: (op, int(program.tensors[op.outputs[0]].shape[1]))
        for op in ordered.ops
        if op.kind == "ChannelAttention" and op.outputs[0] in read
    }


def sparse_storage(program: Program, ordered: Ordered) -> tuple[Ordered, dict[str, Tensor]]:
    """Rewrite every weight gradient whose saved input is smaller as kept channels.

    Returns:
        The rewritten operations and the new tensors.
    """
    attention = forward_attention(program, ordered)
    tensors: dict[str, Tensor] = {}
    result = ordered
    for op in ordered.ops[ordered.forward :]:
        if op.kind not in _INPUT_POSITION or len(op.inputs) < 4 or op.inputs[3] not in attention:
            continue
        saved = op.inputs[_INPUT_POSITION[op.kind]]
        readers = [o for o in ordered.ops[ordered.forward :] if saved in o.inputs]
        maker, channels = attention[op.inputs[3]]
        by_channel = maker.attrs["axis"] == 1 or len(program.tensors[saved].shape) == 2
        if not by_channel or len(readers) > 1 or ordered.ops.index(maker) >= ordered.forward:
            continue
        new = _kept_tensors(program.tensors[saved], op.layer, _most_kept(channels, maker.attrs))
        if sum(t.size_bytes(1) for t in new) < program.tensors[saved].size_bytes(1):
            tensors.update({tensor.name: tensor for tensor in new})
            result = _rewrite(result, op, maker, saved, new)
    return result, tensors


def _most_kept(channels: int, attrs: Mapping[str, object]) -> int:
    cap = attrs.get("cap")
    return kept_bound(channels, float(str(attrs["rho"])), None if cap is None else int(str(cap)))


def _kept_tensors(saved: Tensor, layer: str, cap: int) -> tuple[Tensor, Tensor]:
    if saved.shape[0] != BATCH:
        raise BundleError(
            f"program: saved tensor {saved.name!r} has shape {list(saved.shape)}, expected N first"
        )
    return (
        Tensor(f"kept::{layer}", (BATCH, cap, *saved.shape[2:]), saved.dtype, "saved"),
        Tensor(f"index::{layer}", (BATCH, cap), "int32", "saved"),
    )


def _rewrite(ordered: Ordered, grad: Op, maker: Op, saved: str, new: tuple[Tensor, Tensor]) -> Ordered:
    kept, index = (tensor.name for tensor in new)
    cap = int(new[1].shape[1])
    select = Op("SelectChannels", (saved, maker.outputs[0]), (kept, index), grad.layer, {"cap": cap})
    sparse = replace(grad, kind=f"{grad.kind}Sparse", inputs=_sparse_inputs(grad, kept, index))
    ops: list[Op] = []
    for op in ordered.ops:
        ops.append(sparse if op is grad else op)
        if op is maker:
            ops.append(select)
    return replace(ordered, ops=tuple(ops), forward=ordered.forward + 1)


def _sparse_inputs(grad: Op, kept: str, index: str) -> tuple[str, ...]:
    """Return (kept, index), then the inputs without x and without fw, which is in the kept values."""
    position = _INPUT_POSITION[grad.kind]
    return (kept, index, *(name for i, name in enumerate(grad.inputs) if i not in (position, 3)))
