"""The implicit outer gradient: the inner loop is solved, then differentiated at its solution alone.

Weights are split into a shared part phi and a task part u. Lower level of a task: u minimises
g(phi, u) = loss_S(phi, u) + c/2 |u - u_0|^2, by K gradient steps of which only the last is kept. With
(d2g/du2) v = d loss_Q/du, solved by conjugate gradients on one graph,
d/dphi = d loss_Q/dphi - (d2g/dphi du) v and d/du_0 = c v. Memory does not depend on K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.network import Network
from ..inner.unroll import Unroll
from .base import ChunkSums
from .conjugate_gradient import conjugate_gradient
from .descent import descend, flattened, unflattened

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class LowerLevel:
    """The layers (indices) whose parameters are the task part, its curvature c > 0, the solver's damping.

    With damping d, v solves (d2g/du2 + d*c*I) v = d loss_Q/du instead: stabler, and exact no more.
    """

    layers: tuple[int, ...]
    curvature: float
    damping: float = 0.0


def implicit_sums(
    network: Network, config: MethodConfig, meta: Meta, batch: Batch, lower: LowerLevel
) -> ChunkSums:
    """Sums over the chunk's tasks.

    Metrics beside query loss and metric: `lower_residual`, |grad g| / (|grad loss_S| + c |u - u_0|) at the
    last step, in [0, 1], 0 when the lower level is solved; `cg_residual`, the solver's relative residual.
    """
    learned = {name: meta.learned[name].detach().requires_grad_() for name in network.parameters}
    unroll = Unroll(network, config, learned, lower.layers, batch, first_order=True)
    task, benefit = _solve_lower(network, unroll, meta, lower)
    shared = {name: value for name, value in learned.items() if name not in task}
    weights = {**unroll.weights, **task}
    losses, metrics = unroll.query(weights)
    direct = _gradients(losses.sum(), [*task.values(), *shared.values()])
    slopes = torch.autograd.grad(unroll.support(weights).sum(), list(task.values()), create_graph=True)

    def hessian_times(rows: Tensor) -> Tensor:
        back = unflattened(rows, slopes)
        products = _gradients(slopes, list(task.values()), back, keep=True)
        return flattened(products) + lower.curvature * (1 + lower.damping) * rows

    solved = conjugate_gradient(hessian_times, flattened(direct[: len(task)]), config.cg_steps)
    v = unflattened(solved.x, slopes)
    crossed = _gradients(slopes, list(shared.values()), v)
    grads = {name: lower.curvature * value.sum(0) for name, value in zip(task, v, strict=True)}
    for name, value, cross in zip(shared, direct[len(task) :], crossed, strict=True):
        grads[name] = value - cross
    start = [learned[name].detach() for name in task]
    metrics |= {
        "lower_residual": _lower_residual(slopes, list(task.values()), start, lower.curvature).sum(),
        "cg_residual": solved.residual.sum(),
    }
    return ChunkSums(grads, metrics, benefit)


def _solve_lower(
    network: Network, unroll: Unroll, meta: Meta, lower: LowerLevel
) -> tuple[dict[str, Tensor], Tensor]:
    """The task part after K steps as leaves (T, ...), and the benefit summed over tasks and steps."""
    sizes = {name: float(meta.alpha[0, index]) for index in lower.layers for name in network.names(index)}
    pulls = {name: size * lower.curvature for name, size in sizes.items()}
    weights, benefit = unroll.weights, torch.zeros(())
    for step in descend(unroll, meta.alpha, pulls):
        weights, benefit = step.weights, benefit + step.benefit.sum(0)
    return {name: weights[name].detach().requires_grad_() for name in sizes}, benefit


def _gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Sequence[Tensor],
    back: Sequence[Tensor] | None = None,
    keep: bool = False,
) -> list[Tensor]:
    """Gradients of outputs (times back); zeros where an input plays no part."""
    if not inputs:
        return []
    found = torch.autograd.grad(
        outputs, inputs, back, retain_graph=keep, allow_unused=True, materialize_grads=True
    )
    return list(found)


@torch.no_grad()
def _lower_residual(
    slopes: Sequence[Tensor], task: Sequence[Tensor], start: Sequence[Tensor], curvature: float
) -> Tensor:
    slope = flattened(slopes)
    pull = curvature * flattened([value - first for value, first in zip(task, start, strict=True)])
    scale = slope.norm(dim=1) + pull.norm(dim=1)
    return torch.where(scale == 0, 0, (slope + pull).norm(dim=1) / scale)
