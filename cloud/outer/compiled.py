"""The outer gradient of one chunk of tasks as one compiled program: traced once per shape, second order included.

What autograd would do at every outer step, inner steps and all derivatives, becomes a list of tensor operations. On a
GPU its kernels are recorded once as a CUDA graph and launched together; on a CPU the list runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from ..inner.base import Batch, Meta, MethodConfig
from ..inner.network import Network
from ..lite import LiteConfig
from .base import ChunkSums
from .unrolled import unrolled_sums

WARM_UP = 3
"""Runs before kernels are recorded: libraries choose their algorithms and allocate their workspaces."""
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


def program_of(graph: GraphModule, device: torch.device) -> Program:
    """What runs a traced graph on a device."""
    return Replayed(graph) if device.type == "cuda" else graph


class Replayed:
    """A graph whose kernels are recorded at the first call and from then on launched together, without Python.

    The results lie where those of the next call will.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self._recording: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._results: Sequence[Tensor] = ()

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The graph's results of tensors of always the same shapes."""
        recording = self._recording or self._record(inputs)
        for held, value in zip(self._inputs, inputs, strict=True):
            held.copy_(value)
        recording.replay()
        return self._results

    def _record(self, inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        self._inputs = [value.clone() for value in inputs]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self._graph(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        recording = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recording):
            self._results = self._graph(*self._inputs)
        self._recording = recording
        return recording


class CompiledSums:
    """`unrolled_sums` by programs, one for each combination of shapes, open layers and order.

    Args:
        network: the backbone.
        config: settings of the inner loop.
        lite: size of query batches.
        backend: what makes a program of a graph; none: `program_of`.
    """

    def __init__(
        self, network: Network, config: MethodConfig, lite: LiteConfig, backend: Backend | None = None
    ) -> None:
        self._network, self._config, self._lite = network, config, lite
        self._backend = backend or program_of
        self._programs: dict[Hashable, Program] = {}

    def __call__(
        self,
        meta: Meta,
        layers: tuple[int, ...],
        batch: Batch,
        step_weights: Sequence[float],
        first_order: bool,
    ) -> ChunkSums:
        """See `unrolled_sums`."""
        tensors = _inputs(meta, batch, step_weights)
        asked = tuple(weight != 0 for weight in step_weights)
        shapes = tuple((value.shape, value.dtype, value.device) for value in tensors)
        key = (layers, first_order, asked, tuple(meta.learned), shapes)
        if key not in self._programs:
            graph = self._traced(meta, layers, asked, first_order, tensors)
            self._programs[key] = self._backend(graph, tensors[0].device)
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


def _inputs(meta: Meta, batch: Batch, step_weights: Sequence[float]) -> list[Tensor]:
    weights = torch.tensor(step_weights, dtype=meta.alpha.dtype, device=meta.alpha.device)
    tasks = (batch.support_x, batch.support_y, batch.query_x, batch.query_y)
    return [*meta.learned.values(), meta.alpha, weights, *tasks]
