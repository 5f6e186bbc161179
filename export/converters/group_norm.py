"""BatchNorm becomes GroupNorm, which needs no running statistics and adapts from one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExportError
from .fold_batch_norm import describe, is_batch_norm
from .replace import evaluated_copy, replaced

_TINY = 1e-6


def to_group_norm(
    module: nn.Module, groups: int = 8, images: Tensor | None = None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Replace every BatchNorm by a GroupNorm (Wu and He, "Group Normalization", 2018) with its scale and bias.

    A GroupNorm divides by the statistics of the sample at hand, so a plain copy computes something else. With
    calibration images each norm, in forward order, gets the scale and bias for which its output's mean and
    standard deviation per channel (over images and space) equal those of the BatchNorm it replaces in the original
    model; norms after it already see the corrected activations. The model usually still needs some training.

    Args:
        module: it is not changed. A BatchNorm without running statistics normalises the calibration batch itself.
        groups: upper bound of the number of groups; `group_count` says how many a norm gets.
        images: calibration batch (n, ...) as the module takes it, all run at once; None copies scale and bias only.

    Returns:
        A copy in evaluation mode, and one line for people per norm.

    Raises:
        ExportError: with images: a norm that runs more than once or never, named; images without variation.
    """
    if groups < 1:
        raise ExportError(f"groups: expected at least 1, got {groups}")
    notes: dict[str, str] = {}

    def substitute(path: str, part: nn.Module) -> nn.Module | None:
        if not is_batch_norm(part):
            return None
        norm = _group_norm(part, groups)
        notes[path] = f"{describe(path, part)}: GroupNorm of {norm.num_groups} groups"
        return norm

    result, new = replaced(module, substitute)
    done = "scale and bias copied; calibrate with images or train on"
    if images is not None and new:
        _calibrate(result, new, _output_moments(module, tuple(new), images), images)
        done = f"scale and bias re-estimated on {len(images)} images"
    return result, tuple(f"{note}, {done}" for note in notes.values())


def group_count(channels: int, groups: int, smallest: int = 2) -> int:
    """The largest divisor of `channels` up to `groups` that leaves `smallest` channels per group; else 1."""
    fitting = (n for n in range(1, groups + 1) if channels % n == 0 and channels // n >= smallest)
    return max(fitting, default=1)


def _group_norm(norm: Any, groups: int) -> nn.GroupNorm:
    """With scale and bias of a BatchNorm; of BatchNorm1d at least 8 channels per group: two numbers of a vector
    would always be normalised to 1 and -1."""
    count = group_count(norm.num_features, groups, 8 if isinstance(norm, nn.BatchNorm1d) else 2)
    like = next((t for t in (norm.weight, norm.running_mean) if t is not None), torch.zeros(0))
    made = nn.GroupNorm(count, norm.num_features, norm.eps, device=like.device, dtype=like.dtype)
    if norm.affine:
        with torch.no_grad():
            made.weight.copy_(norm.weight)
            made.bias.copy_(norm.bias)
    return made


@dataclass(frozen=True)
class _Moments:
    """Mean and standard deviation per channel, (C,), over every other axis; float64."""

    mean: Tensor
    std: Tensor


def _moments(value: Tensor) -> _Moments:
    rows = value.detach().double().transpose(0, 1).flatten(1)
    return _Moments(rows.mean(1), rows.std(1, correction=0))


def _output_moments(module: nn.Module, paths: tuple[str, ...], images: Tensor) -> dict[str, _Moments]:
    """Of what every BatchNorm of the original model returns."""
    original = evaluated_copy(module)
    found: dict[str, _Moments] = {}

    def watch(path: str) -> Any:
        def hook(part: nn.Module, args: Any, output: Tensor) -> None:
            if path in found:
                raise ExportError(f"module {path!r} runs more than once; give every use its own BatchNorm")
            found[path] = _moments(output)

        return hook

    for path in paths:
        original.get_submodule(path).register_forward_hook(watch(path))
    with torch.no_grad():
        original(images)
    if missing := [path for path in paths if path not in found]:
        raise ExportError(f"module {missing[0]!r} never runs on the calibration images; remove it")
    return found


def _calibrate(
    module: nn.Module, norms: dict[str, nn.Module], targets: dict[str, _Moments], images: Tensor
) -> None:
    """Run the images once; every norm corrects itself, and its output, before the layers after it run."""

    def correct(target: _Moments) -> Any:
        def hook(norm: Any, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            bare = nn.functional.group_norm(args[0], norm.num_groups, eps=norm.eps)
            normal = _moments(bare)
            varies = normal.std > _TINY
            scale = torch.where(varies, target.std / normal.std.clamp_min(_TINY), norm.weight.abs().double())
            scale = torch.copysign(scale, norm.weight.double())
            norm.weight.copy_(scale)
            norm.bias.copy_(target.mean - scale * normal.mean)
            return nn.functional.group_norm(args[0], norm.num_groups, norm.weight, norm.bias, norm.eps)

        return hook

    handles = [norm.register_forward_hook(correct(targets[path])) for path, norm in norms.items()]
    try:
        with torch.no_grad():
            module(images)
    finally:
        for handle in handles:
            handle.remove()
