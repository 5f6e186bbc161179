"""Eager PyTorch as an engine: the same gradient steps on the module that a benchmark's bundle was made from.

python benchmarks/torch_engine.py JOB     one measurement, as edge_adapt.edge.bench_job does for other engines
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from edge_adapt.edge.bench_job import main
from edge_adapt.edge.engines import NO_HOOKS, Adaptation, Hooks, Samples, Support, Weights
from edge_adapt.edge.engines.base import Array
from edge_adapt.edge.engines.loop import check_support, run_steps
from edge_adapt.edge.engines.sessions import filled, step_sizes
from edge_adapt.edge.plan import Plan
from edge_adapt.edge.program import Program
from edge_cases import CASES, Case
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class TorchEngine:
    """Autograd on a case's module in evaluation mode; frozen parameters need no gradient."""

    name = "torch"
    plans = False

    def __init__(self, case: Case) -> None:
        self._case = case

    def adapt(
        self,
        program: Program,
        plan: Plan,
        weights: Weights,
        support: Support,
        start_step: int = 0,
        hooks: Hooks = NO_HOOKS,
    ) -> Adaptation:
        """See `Engine.adapt`; the bundle's loss is cross-entropy over all outputs."""
        check_support(program, plan, support)
        return run_steps(_Run(self._case, program, plan, weights, support), plan, start_step, hooks)

    def predict(
        self, program: Program, weights: Weights, samples: Samples, micro_batch: int = 1
    ) -> NDArray[np.float32]:
        """See `Engine.predict`."""
        module = _with_weights(self._case.module(), weights)
        with torch.no_grad():
            parts = [
                module(
                    torch.from_numpy(filled(program, samples, start, min(micro_batch, len(samples) - start)))
                )
                for start in range(0, len(samples), micro_batch)
            ]
        logits: NDArray[np.float32] = torch.cat(parts).numpy()
        return logits


@dataclass
class _Run:
    """One adaptation in progress; see `Running`."""

    case: Case
    program: Program
    plan: Plan
    weights: Weights
    support: Support
    updated: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        ever = {name for step in self.plan.layers for name in step}
        self._owner = {param: layer.name for layer in self.program.layers for param in layer.params}
        self._module = _with_weights(self.case.module(), self.weights)
        self._params = dict(self._module.named_parameters())
        for name, param in self._params.items():
            param.requires_grad_(self._owner[name] in ever)
        self.updated = {n: p.detach().numpy() for n, p in self._params.items() if p.requires_grad}
        self._labels = torch.from_numpy(self.support.loss_inputs()["labels"])

    def gradients(self, step: int) -> float:
        """Add up the micro-batches' gradients; return the mean loss."""
        samples, loss = len(self.support), 0.0
        for start in range(0, samples, self.plan.micro_batch):
            count = min(self.plan.micro_batch, samples - start)
            images = torch.from_numpy(filled(self.program, self.support, start, count))
            labels = self._labels[start : start + count]
            part: Tensor = cross_entropy(self._module(images), labels, reduction="sum") / samples
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        return loss

    def not_finite(self, step: int, loss: float) -> str | None:
        """See `Running.not_finite`; of the loss only, which is what a training loop looks at."""
        return None if math.isfinite(loss) else "the loss"

    def update(self, step: int) -> None:
        """Subtract step size times gradient where the step updates; forget the gradients."""
        sizes = step_sizes(self.program, self.weights, step)
        with torch.no_grad():
            for name, param in self._params.items():
                if param.grad is not None and self._owner[name] in self.plan.layers[step]:
                    param.sub_(param.grad, alpha=sizes[self._owner[name]])
                if param.grad is not None:
                    param.grad.zero_()

    def restore(self) -> None:
        """Nothing to do: parameters change when a step is finished."""

    def measured_dynamic_bytes(self) -> int | None:
        """There is no arena."""
        return None


def _with_weights(module: nn.Module, weights: Weights) -> nn.Module:
    """Put the bundle's weights into a module, which has them under the same names."""
    for name, param in module.named_parameters():
        param.data = torch.from_numpy(weights.copy(name))
    return module.eval()


def torch_engine(name: str, directory: Path, threads: int) -> TorchEngine:
    """Return the engine for a bundle of `edge_cases`, whose directory begins with the case's name."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return TorchEngine(CASES[directory.name.rpartition("-")[0]])


if __name__ == "__main__":
    main(torch_engine)
