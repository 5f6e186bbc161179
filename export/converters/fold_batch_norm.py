"""BatchNorm with its running statistics is a fixed affine map per channel: y = scale * x + shift."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ExportError
from .replace import evaluated_copy, replaced

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OWN_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


class ChannelAffine(nn.Module):
    """y = weight * x + bias over axis 1; x (N, C, ...), weight and bias (C,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift the channels of x."""
        shape = (-1, *(1 for _ in x.shape[2:]))
        return x * self.weight.reshape(shape) + self.bias.reshape(shape)


def fold_batch_norm(module: nn.Module, *, into_conv: bool = False) -> tuple[nn.Module, tuple[str, ...]]:
    """Replace every BatchNorm by a fixed affine map that computes what it computes in evaluation mode.

    By default the map stays a layer of its own, a `ChannelAffine`, for three reasons. The weights of the convolution
    before it stay those of the trained model, names included. Scale and shift keep their own step size and their own
    place in the layer mask: adapting only them is the cheapest useful adaptation. And folding multiplies each output
    channel's gradient by its scale, so that one step size for the convolution would mean another step for every
    channel (by the scale squared). With `into_conv` a network that is only read, or whose convolutions are frozen,
    saves the operation and the activation between the two.

    Args:
        module: it is not changed, its mode and dtype do not matter.
        into_conv: fold into the convolution before the norm where the norm is the only reader of its output and the
            module can be traced by torch.fx; other norms stay layers of their own. (Not into linear layers: whether
            axis 1 of their output is the feature axis depends on the rank of the data.)

    Returns:
        A copy in evaluation mode, and one line for people per norm.

    Raises:
        ExportError: a norm has no running statistics (it uses those of each batch), named.
    """
    notes: list[str] = []

    def substitute(path: str, part: nn.Module) -> nn.Module | None:
        if not isinstance(part, _BatchNorm):
            return None
        if type(part).forward not in _OWN_FORWARDS:
            notes.append(f"{describe(path, part)}: kept, since {type(part).__name__} has its own forward")
            return None
        scale, shift = fixed_affine(path, part)
        notes.append(f"{describe(path, part)}: running statistics folded into a fixed scale and shift, "
                     f"layer {path!r}{_untrained(part)}")  # fmt: skip
        return ChannelAffine(scale, shift)

    targets = _convolutions_before(module) if into_conv else {}
    folded = evaluated_copy(module)
    for path, conv_path in targets.items():
        norm, conv = folded.get_submodule(path), folded.get_submodule(conv_path)
        _fold_into(conv, *fixed_affine(path, norm))
        folded.set_submodule(path, nn.Identity())
        notes.append(
            f"{describe(path, norm)}: folded into the weights of convolution {conv_path!r}{_untrained(norm)}"
        )
    return replaced(folded, substitute)[0], tuple(notes)


def is_batch_norm(part: nn.Module) -> bool:
    """Whether a module is a BatchNorm that computes what torch's own classes compute."""
    return isinstance(part, _BatchNorm) and type(part).forward in _OWN_FORWARDS


def fixed_affine(path: str, norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that equal a BatchNorm in evaluation mode, computed in float64.

    Raises:
        ExportError: it has no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ExportError(
            f"module {path!r} ({type(norm).__name__}): it has no running statistics (track_running_stats=False), so "
            "its output depends on the other samples of a batch; convert it with to_group_norm, or train it with "
            "track_running_stats=True"
        )
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    shift = -mean * scale
    if norm.affine:
        scale, shift = scale * norm.weight.detach().double(), shift * norm.weight.detach().double()
        shift = shift + norm.bias.detach().double()
    return scale.to(norm.running_mean.dtype), shift.to(norm.running_mean.dtype)


def describe(path: str, norm: Any) -> str:
    """How notes name a norm: its path, class and number of channels."""
    return f"{path or 'the module'} ({type(norm).__name__}, {norm.num_features} channels)"


def _untrained(norm: Any) -> str:
    counted = norm.num_batches_tracked
    return "; its statistics were never trained" if counted is not None and int(counted) == 0 else ""


def _convolutions_before(module: nn.Module) -> dict[str, str]:
    """BatchNorm path -> path of the convolution whose output only it reads; empty if torch.fx cannot trace it."""
    try:
        graph = fx.symbolic_trace(evaluated_copy(module)).graph
    except Exception:  # whatever the module's own code raises on a proxy
        return {}
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    pairs = [
        (str(node.target), str(source.target))
        for node in graph.nodes
        for source in node.all_input_nodes[:1]
        if node.op == source.op == "call_module" and len(source.users) == 1
    ]
    return {
        norm: conv
        for norm, conv in pairs
        if calls[norm] == calls[conv] == 1
        and is_batch_norm(module.get_submodule(norm))
        and _owns_its_parameters(module, conv)
    }


def _owns_its_parameters(module: nn.Module, path: str) -> bool:
    """Whether it is a plain convolution that shares no parameter with another layer."""
    conv = module.get_submodule(path)
    uses = Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))
    return type(conv) in _CONVOLUTIONS and all(uses[id(parameter)] == 1 for parameter in conv.parameters())


def _fold_into(conv: Any, scale: Tensor, shift: Tensor) -> None:
    """Scale the convolution's output channels and shift them, in place."""
    weight = conv.weight.detach()
    by_channel = scale.double().reshape(-1, *(1 for _ in weight.shape[1:]))
    before = torch.zeros_like(scale) if conv.bias is None else conv.bias.detach()
    conv.weight = nn.Parameter((weight.double() * by_channel).to(weight.dtype))
    conv.bias = nn.Parameter((before.double() * scale.double() + shift.double()).to(weight.dtype))
