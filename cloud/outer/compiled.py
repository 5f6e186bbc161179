"""The outer gradient of one chunk of tasks as one compiled program: traced once per shape, second order included.

What autograd would do at every outer step, inner steps and all derivatives, becomes a list of tensor operations that
torch.compile turns into a program: on a CPU fused loops, on a GPU fused kernels replayed as one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import TrainingError
from ..inner.base import Batch, Meta, MethodConfig
from ..inner.network import Network
from ..lite import LiteConfig
from .base import ChunkSums
from .unrolled import unrolled_sums

MESSAGE = 200
"""Characters of what torch says that are passed on."""
Program = Callable[..., Sequence[Tensor]]
Backend = Callable[[GraphModule, torch.device], Program]


def refuse_compilation(config: MethodConfig, lite: LiteConfig) -> None:
    """Check that nothing asks for what a compiled program cannot do.

    Raises:
        ValueError: names the setting, and what to do.
    """
    reasons = {
        "checkpoint_steps = true": config.checkpoint_steps,
        f"lite.h = {lite.h}": lite.h is not None,
        'attention_masks = "maps"': config.attention and config.attention_masks == "maps",
    }
    for setting, holds in reasons.items():
        if config.compile_steps and holds:
            raise ValueError(f"compile_steps: true does not go with {setting}; set it to false")


def torch_compile(graph: GraphModule, device: torch.device) -> Program:
    """Compile a traced graph; on a GPU all its kernels are launched at once, as a CUDA graph."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    program: Program = torch.compile(graph, fullgraph=True, dynamic=False, mode=mode)
    return program


class CompiledSums:
    """`unrolled_sums` by programs, one for each combination of shapes, open layers and order.

    Args:
        network: the backbone.
        config: settings of the inner loop.
        lite: size of query batches.
        backend: what makes a program of a graph; none: `torch_compile`.
    """

    def __init__(
        self, network: Network, config: MethodConfig, lite: LiteConfig, backend: Backend | None = None
    ) -> None:
        self._network, self._config, self._lite = network, config, lite
        self._backend = backend or torch_compile
        self._programs: dict[Hashable, Program] = {}

    def __call__(
        self,
        meta: Meta,
        layers: tuple[int, ...],
        batch: Batch,
        step_weights: Sequence[float],
        first_order: bool,
    ) -> ChunkSums:
        """See `unrolled_sums`.

        Raises:
            TrainingError: the program cannot be compiled here.
        """
        tensors = _inputs(meta, batch, step_weights)
        asked = tuple(weight != 0 for weight in step_weights)
        shapes = tuple((value.shape, value.dtype, value.device) for value in tensors)
        key = (layers, first_order, asked, tuple(meta.learned), shapes)
        if key not in self._programs:
            graph = self._traced(meta, layers, asked, first_order, tensors)
            self._programs[key] = _reporting(self._backend(graph, tensors[0].device))
        with torch.no_grad():
            found = [value.clone() for value in self._programs[key](*tensors)]
        names = ("query_loss", f"query_{self._network.loss.metric}")
        *grads, benefit, loss, metric = found
        return ChunkSums(
            dict(zip(meta.learned, grads, strict=True)),
            dict(zip(names, (loss, metric), strict=True)),
            benefit,
        )

    def _traced(
        self,
        meta: Meta,
        layers: tuple[int, ...],
        asked: Sequence[bool],
        first_order: bool,
        tensors: Sequence[Tensor],
    ) -> GraphModule:
        """The graph from `_inputs` to gradients, benefit, query loss and metric."""
        names = tuple(meta.learned)

        def sums(*values: Tensor) -> list[Tensor]:
            learned, (alpha, sizes, *tasks) = values[: len(names)], values[len(names) :]
            known = Meta(dict(zip(names, learned, strict=True)), {"alpha": alpha})
            weights = [sizes[k] if counts else 0.0 for k, counts in enumerate(asked)]
            found = unrolled_sums(
                self._network, self._config, self._lite, known, layers, Batch(*tasks), weights, first_order
            )
            return [*found.grads.values(), found.benefit, *found.metrics.values()]

        graph: GraphModule = make_fx(sums)(*tensors)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return graph


def _reporting(program: Program) -> Program:
    """The same program; what torch cannot compile it says at the first call, in many lines."""

    def run(*inputs: Tensor) -> Sequence[Tensor]:
        try:
            return program(*inputs)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:MESSAGE]
            raise TrainingError(
                f"method.compile_steps: the compiled step did not run on {inputs[0].device.type} "
                f"({type(error).__name__}: {said}); set it to false"
            ) from error

    return run


def _inputs(meta: Meta, batch: Batch, step_weights: Sequence[float]) -> list[Tensor]:
    weights = torch.tensor(step_weights, dtype=meta.alpha.dtype, device=meta.alpha.device)
    tasks = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return [*meta.learned.values(), meta.alpha, weights, *tasks]
