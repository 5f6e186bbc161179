"""A feature extractor from a backbone: the classifier cut off, no statistics of batches."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def extractor_of(module: nn.Module, sample_shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """A copy of a classifier without its last linear layer, in eval mode, and its features per sample, D.

    Args:
        module: (n, C, H, W) -> (n, outputs).
        sample_shape: (C, H, W).

    Raises:
        ValueError: the outputs are not those of a linear layer, or a norm uses the statistics of the batch.
    """
    refuse_live_statistics(module)
    extractor = copy.deepcopy(module).eval()
    name = _classifier(extractor, sample_shape)
    linear = extractor.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    parent, _, own = name.rpartition(".")
    setattr(extractor.get_submodule(parent), own, nn.Identity())
    return extractor, linear.in_features


def refuse_live_statistics(module: nn.Module) -> None:
    """Raise ValueError where a BatchNorm has no statistics of its own but takes those of the batch."""
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.running_mean is None:
            raise ValueError(
                f"{name} normalises by the statistics of the batch that it sees: a sample's features would depend "
                "on the samples beside it, so a support set in chunks would have others than in one piece and "
                "LITE's gradient would be biased; give it running statistics, or use GroupNorm (norm = group)"
            )


def frozen_norms(module: nn.Module) -> tuple[str, ...]:
    """Names of norms whose statistics are constants, and so have to come from an earlier training."""
    return tuple(name for name, part in module.named_modules() if isinstance(part, _BatchNorm))


def _classifier(module: nn.Module, sample_shape: tuple[int, ...]) -> str:
    """Name of the linear layer whose outputs are the module's."""
    linears = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    outputs: dict[str, Tensor] = {}
    handles = [
        part.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name, part in linears.items()
    ]
    with torch.no_grad():
        found = module(torch.zeros(1, *sample_shape))
    for handle in handles:
        handle.remove()
    named = [name for name, output in outputs.items() if output is found]
    if not named:
        raise ValueError(
            f"{type(module).__name__} must end in a linear layer, its classifier, which is cut off: "
            "what it returns is the output of none"
        )
    return named[0]
