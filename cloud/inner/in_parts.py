"""A sum over groups of samples, differentiable once, that holds the graph of one group at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Group = TypeVar("Group")


def sum_in_parts(
    function: Callable[[Group, Sequence[Tensor]], Tensor], groups: Sequence[Group], inputs: Sequence[Tensor]
) -> Tensor:
    """Sum of the scalars function(group, inputs).

    Of several groups each is differentiated as soon as it is computed; what the function sees are then detached
    copies of the inputs, and the sum can be differentiated in nothing else and only once.
    """
    if len(groups) == 1 or not torch.is_grad_enabled():
        return torch.stack([function(group, inputs) for group in groups]).sum()
    total: Tensor = _sum(function, groups, *inputs)
    return total


class _Sum(Function):
    @staticmethod
    def forward(ctx: Any, function: Any, groups: Sequence[Any], *inputs: Tensor) -> Tensor:
        wanted = ctx.needs_input_grad[2:]
        leaves = [value.detach().requires_grad_(on) for value, on in zip(inputs, wanted, strict=True)]
        targets = [leaf for leaf in leaves if leaf.requires_grad]
        total, sums = inputs[0].new_zeros(()), [torch.zeros_like(target) for target in targets]
        for group in groups:
            with torch.enable_grad():
                part = function(group, leaves)
            found = torch.autograd.grad(part, targets, allow_unused=True, materialize_grads=True)
            sums = [total + more for total, more in zip(sums, found, strict=True)]
            total = total + part.detach()
        ctx.wanted = wanted
        ctx.save_for_backward(*sums)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        found = iter(ctx.saved_tensors)
        return None, None, *(next(found) * grads[0] if on else None for on in ctx.wanted)


_sum: Any = _Sum.apply
