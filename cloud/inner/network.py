"""A module as a function of its weights: the traced graph on many tasks at once, with cached prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...edge.cost import Layer
from ..losses import CROSS_ENTROPY, Loss
from ..models.layers import layer_table, pool_before_relu, trace
from .kinds import LayerKind, NormPoolKind, layer_kind
from .pool import Size, window_of
from .stand_ins import stand_in

LayerCall = Callable[[int, Tensor], Tensor]
OUTPUT = "output"


class Network:
    """A backbone's graph and layer table; weights are always passed in, never read from the module.

    Attributes:
        module: the plain torch module (exportable; its own parameters are only the initial values).
        layers: the layer table in execution order; layer indices below refer to it.
        sample_shape: (C, H, W) of one sample.
        loss: what the outputs mean, for every loop over this network.
    """

    def __init__(self, module: nn.Module, sample_shape: tuple[int, ...], loss: Loss = CROSS_ENTROPY) -> None:
        self.module = module
        self.loss = loss
        self.sample_shape = sample_shape
        traced = trace(module)
        self.layers: tuple[Layer, ...] = layer_table(traced, sample_shape)
        self._graph = pool_before_relu(traced)
        self._index = {layer.name: index for index, layer in enumerate(self.layers)}
        layer_nodes = {str(n.target): n for n in self._graph.graph.nodes if n.op == "call_module"}
        self._layer_nodes = [layer_nodes[layer.name] for layer in self.layers]
        self._inputs = [node.all_input_nodes[0].name for node in self._layer_nodes]
        self._nodes = {node.name: node for node in self._graph.graph.nodes}
        self.parameters = tuple(name for name, _ in module.named_parameters())
        self._kinds = [layer_kind(self.part(index)) for index in range(len(self.layers))]
        self._done: frozenset[str] = frozenset()
        self.source = next(node.name for node in self._graph.graph.nodes if node.op == "placeholder")

    def weights(self) -> dict[str, Tensor]:
        """Copies of the module's parameters by name."""
        return {name: value.detach().clone() for name, value in self.module.named_parameters()}

    def per_task(
        self, weights: Mapping[str, Tensor], updated: Iterable[int], tasks: int
    ) -> dict[str, Tensor]:
        """The weights that T tasks start from: (T, ...) where a task changes them or a layer mixes samples."""
        mixing = [index for index, kind in enumerate(self._kinds) if kind.mixes_samples]
        own = {name for index in (*updated, *mixing) for name in self.names(index)}
        return {
            name: weights[name].expand(tasks, *weights[name].shape) if name in own else weights[name]
            for name in self.parameters
        }

    def names(self, index: int) -> tuple[str, ...]:
        """Names of a layer's parameters, weight first."""
        prefix = self.layers[index].name
        return tuple(f"{prefix}.{name}" for name, _ in self.part(index).named_parameters())

    def input_of(self, index: int) -> str:
        """Name of the graph node that a layer reads."""
        name: str = self._inputs[index]
        return name

    def kind(self, index: int) -> LayerKind:
        """The layer's arithmetic on many tasks."""
        return self._kinds[index]

    def part(self, index: int) -> Any:
        """The torch module of one layer (its geometry: stride, padding, eps, ...)."""
        return self._graph.get_submodule(self.layers[index].name)

    @cached_property
    def fused(self) -> Network:
        """The same network where no norm's own output exists that only a max-pool reads: the pair is one layer.

        Faster and smaller; for loops that watch nothing between the two.
        """
        copied = copy(self)
        copied._kinds = list(self._kinds)
        pools = {index: pool for index in range(len(self.layers)) if (pool := self._pool_after(index))}
        for index, (_, window) in pools.items():
            copied._kinds[index] = NormPoolKind(self.part(index), window)
        copied._done = frozenset(name for name, _ in pools.values())
        return copied

    def _pool_after(self, index: int) -> tuple[str, Size] | None:
        """Name and window of the max-pool that alone reads a GroupNorm's output."""
        readers = list(self._layer_nodes[index].users)
        if not isinstance(self.part(index), nn.GroupNorm) or len(readers) != 1:
            return None
        (reader,) = readers
        if reader.op != "call_module":
            return None
        window = window_of(self._graph.get_submodule(str(reader.target)))
        return None if window is None else (reader.name, window)

    def frontier(self, open_layers: Iterable[int]) -> tuple[str, ...]:
        """Values that depend on no open layer's weights but are read by something that does.

        They can be computed once per task and passed to `run` as `known` at every inner step.
        """
        below = self._depending(set(open_layers))
        feeds = {source.name for name in below for source in self._nodes[name].all_input_nodes}
        return tuple(name for name in self._nodes if name in feeds - below)

    def run(
        self, known: Mapping[str, Tensor], call: LayerCall, wanted: tuple[str, ...] = (OUTPUT,)
    ) -> list[Tensor]:
        """Values of the wanted graph nodes; `call(layer index, input)` computes each layer.

        Args:
            known: values by node name that need not be computed, at least the input (`source`) or a frontier.
            call: what a layer does with its input (batch, ...).
            wanted: node names; the default is the logits.
        """
        values: dict[str, Any] = dict(known)
        for node in self._needed(frozenset(known), wanted):
            values[node.name] = self._execute(node, values, call)
        return [values[name] for name in wanted]

    def _execute(self, node: fx.Node, values: dict[str, Any], call: LayerCall) -> Any:
        args: Any = fx.node.map_arg(node.args, lambda source: values[source.name])
        kwargs: Any = fx.node.map_arg(node.kwargs, lambda source: values[source.name])
        target: Any = node.target
        if node.op == "call_module":
            index = self._index.get(str(target))
            if node.name in self._done:
                return args[0]
            if index is not None:
                return call(index, args[0])
            return stand_in(self._graph.get_submodule(str(target)))(*args, **kwargs)
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        return args[0]

    def _needed(self, known: frozenset[str], wanted: tuple[str, ...]) -> list[fx.Node]:
        needed: set[str] = set()
        stack = [name for name in wanted if name not in known]
        while stack:
            name = stack.pop()
            needed.add(name)
            sources = (source.name for source in self._nodes[name].all_input_nodes)
            stack += [source for source in sources if source not in known and source not in needed]
        return [node for name, node in self._nodes.items() if name in needed]

    def _depending(self, open_layers: set[int]) -> set[str]:
        names = {self.layers[index].name for index in open_layers}
        below: set[str] = set()
        for name, node in self._nodes.items():
            is_open = node.op == "call_module" and str(node.target) in names
            if is_open or any(source.name in below for source in node.all_input_nodes):
                below.add(name)
        return below


def forward(network: Network, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Logits of the plain module with these weights, x (N, C, H, W)."""
    logits: Tensor = torch.func.functional_call(network.module, dict(weights), (x,))
    return logits
