"""From a source to its program: capture, differentiate, drop what is never updated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..edge.program import Program
from .autodiff import differentiate
from .errors import ExportError
from .losses import loss_named
from .passes import DropFrozenAttention, apply
from .source import Array, AttentionModule, AttentionSettings, Side, Source
from .tape import LayerAttention

PARTS = ("w1", "b1", "w2", "b2")


def adaptation(source: Source) -> Program:
    """The whole adaptation as one program.

    Gradients and updates of all layers are there; attention only for layers that are updated in some step.

    Raises:
        ExportError: the module holds what no rule recognises, or its layers are not those of the source, or its
            outputs are not what the loss takes.
    """
    forward = source.captured.program
    attention = layer_attention(source.attention, source.settings)
    _check_norms(forward, attention)
    loss = loss_named(source.loss, source.label_smoothing)
    whole = differentiate(forward, attention, len(source.alpha), loss)
    return apply(DropFrozenAttention(source.updated_layers), whole).program


def _check_norms(forward: Program, attention: Mapping[str, LayerAttention]) -> None:
    for op in forward.ops():
        if op.kind != "GroupNorm" or op.layer not in attention:
            continue
        if forward.tensors[op.inputs[0]].shape[1] == op.attrs["groups"]:
            raise ExportError(
                f"layer {op.layer!r}: attention needs more than one channel per group (or its pooled input "
                "is always 0); use fewer groups"
            )


def layer_attention(
    attended: Mapping[str, Mapping[Side, AttentionModule]], settings: AttentionSettings
) -> dict[str, LayerAttention]:
    """Attributes of the attention operations of every layer that has modules."""
    sides: dict[str, dict[str, float | int | str | None]] = {
        "fw": {"rho": settings.rho_fw, "cap": settings.cap, "normalize": "none"},
        "bw": {
            "rho": settings.rho_bw,
            "cap": None,
            "normalize": "rms" if settings.bw_input == "rms" else "none",
        },
    }
    return {
        layer: LayerAttention(
            {side: sides[side] for side in modules},
            {side: len(module.b1) for side, module in modules.items()},
        )
        for layer, modules in attended.items()
    }


def tensors(source: Source, program: Program) -> dict[str, Array]:
    """Every tensor of `weights.safetensors`: parameters, alpha and the attention parameters of the program.

    Raises:
        ExportError: a shape differs from the program's, or a value is not finite.
    """
    found = {**source.captured.values, "alpha": _float32(source.alpha)}
    for layer, sides in source.attention.items():
        for side, module in sides.items():
            found |= {
                f"attention::{layer}::{side}::{part}": _float32(getattr(module, part)) for part in PARTS
            }
    wanted = [t for role in ("param", "step-size", "attention-param") for t in program.with_role(role)]
    for tensor in wanted:
        shape = found[tensor.name].shape
        if shape != tensor.shape:
            raise ExportError(f"tensor {tensor.name!r}: expected shape {tensor.shape}, got {shape}")
        if not np.all(np.isfinite(found[tensor.name])):
            raise ExportError(f"tensor {tensor.name!r} has values that are not finite; the training diverged")
    return {tensor.name: found[tensor.name] for tensor in wanted}


def _float32(value: NDArray[Any]) -> Array:
    return np.ascontiguousarray(value, np.float32)
