"""The layers of any module made of conv, linear and norm layers: the table behind costs and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ...edge.cost import Layer
from .in_place import without_in_place

RELUS: tuple[Any, ...] = (nn.ReLU, F.relu, torch.relu, "relu")
BATCH_NORMS: tuple[Any, ...] = (nn.BatchNorm1d, nn.BatchNorm2d)
LAYERS: tuple[Any, ...] = (nn.Conv2d, nn.Linear, nn.GroupNorm, *BATCH_NORMS)
NORMS: tuple[Any, ...] = (nn.GroupNorm, *BATCH_NORMS)
KNOWN = "conv, linear, GroupNorm or BatchNorm"
POOLS: tuple[Any, ...] = (nn.MaxPool2d, F.max_pool2d, torch.max_pool2d)


def trace(module: nn.Module) -> fx.GraphModule:
    """The module's graph, with conv, linear and norm modules as single nodes.

    Raises:
        ValueError: a layer is used twice, a part with parameters is none of `KNOWN`, a parameter is shared,
            frozen or without use, or a value that others read is changed in place.
    """
    graph_module = without_in_place(fx.symbolic_trace(module))
    graph_module.graph.eliminate_dead_code()
    called = [str(node.target) for node in graph_module.graph.nodes if node.op == "call_module"]
    for name in called:
        part = graph_module.get_submodule(name)
        if any(True for _ in part.parameters()) or type(part) in NORMS:
            _refuse_unsupported(name, part, called.count(name))
    loose = [str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"]
    if loose:
        raise ValueError(f"parameter {loose[0]} is used outside {KNOWN} layers; make it part of one")
    _refuse_parameters(module, called)
    return graph_module


def _refuse_parameters(module: nn.Module, called: Sequence[str]) -> None:
    """Every parameter belongs to one layer that is used, and may change."""
    first: dict[int, str] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name.rpartition(".")[0] not in called:
            raise ValueError(f"parameter {name} plays no part in the output; remove it")
        if (other := first.setdefault(id(parameter), name)) != name:
            raise ValueError(f"{other} and {name} are one parameter; every layer needs its own")
        if not parameter.requires_grad:
            raise ValueError(f"parameter {name} needs no gradient, but meta-training would change it")


def _refuse_unsupported(name: str, part: nn.Module, uses: int) -> None:
    if type(part) not in LAYERS:
        raise ValueError(f"layer {name}: expected {KNOWN}, got {type(part).__name__}")
    if type(part) in NORMS and not any(True for _ in part.parameters()):
        raise ValueError(f"layer {name}: a norm needs scale and shift, got affine = False")
    if uses > 1:
        raise ValueError(f"layer {name} is used {uses} times; every layer must be used once")
    padding = getattr(part, "padding", ()), getattr(part, "padding_mode", "zeros")
    if isinstance(padding[0], str) or padding[1] != "zeros":
        raise ValueError(
            f"layer {name}: padding must be numbers of zeros, got {padding[0]!r} of {padding[1]}"
        )


def layer_table(graph_module: fx.GraphModule, sample_shape: tuple[int, ...]) -> tuple[Layer, ...]:
    """One `Layer` per conv, linear and norm in execution order; sample_shape is (C, H, W)."""
    found = [node for node in graph_module.graph.nodes if _is_one_of(graph_module, node, LAYERS)]
    if not found:
        raise ValueError(f"the module has no {KNOWN} layer")
    sizes = _sizes(graph_module, sample_shape)
    last = found[-1]
    return tuple(_describe(graph_module, node, sizes, node is last) for node in found)


class _Sizes(fx.Interpreter):
    """Runs the graph once and notes how many words each node produces."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.words: dict[str, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.words[n.name] = value.numel()
        return value


def _sizes(graph_module: fx.GraphModule, sample_shape: tuple[int, ...]) -> dict[str, int]:
    parameter = next(graph_module.parameters())
    interpreter = _Sizes(deepcopy(graph_module).eval())
    with torch.no_grad():
        interpreter.run(torch.zeros(1, *sample_shape, dtype=parameter.dtype, device=parameter.device))
    return interpreter.words


def _describe(graph_module: fx.GraphModule, node: fx.Node, sizes: dict[str, int], is_output: bool) -> Layer:
    part: Any = graph_module.get_submodule(str(node.target))
    source = node.all_input_nodes[0].name
    relu, pool = _follower(graph_module, node, RELUS), _follower(graph_module, node, POOLS)
    kind, channels_in, channels_out, groups, macs = _GEOMETRY[type(part)](part)
    return Layer(
        name=str(node.target),
        kind=kind,
        weight_words=sum(p.numel() for p in part.parameters()),
        input_words=sizes[source],
        output_words=sizes[node.name],
        channels_in=channels_in,
        channels_out=channels_out,
        groups=groups,
        macs_per_output=macs,
        relu_words=sizes[relu.name] if relu else 0,
        pooled_words=sizes[pool.name] if pool else 0,
        is_output=is_output,
    )


_Geometry = tuple[Any, int, int, int, int]
_GEOMETRY: dict[type, Callable[[Any], _Geometry]] = {
    nn.Conv2d: lambda p: ("conv", p.in_channels, p.out_channels, p.groups, p.weight[0].numel()),
    nn.Linear: lambda p: ("fc", p.in_features, p.out_features, 1, p.in_features),
    nn.GroupNorm: lambda p: ("norm", p.num_channels, p.num_channels, p.num_groups, 1),
    **{kind: lambda p: ("norm", p.num_features, p.num_features, 1, 1) for kind in BATCH_NORMS},
}


def _follower(graph_module: fx.GraphModule, node: fx.Node, kinds: tuple[Any, ...]) -> fx.Node | None:
    """The first node of one of these kinds reached from `node` before the next layer.

    Where branches meet, what follows counts for the first of them only (a sum's left operand).
    """
    reached = [(node, user) for user in node.users]
    while reached:
        source, user = reached.pop(0)
        if user.all_input_nodes[0] is not source:
            continue
        if _is_one_of(graph_module, user, kinds):
            return user
        if not _is_one_of(graph_module, user, LAYERS):
            reached += [(user, following) for following in user.users]
    return None


def pool_before_relu(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Rewrite max_pool(relu(x)) as relu(max_pool(x)): the same values and gradients, on the smaller map."""
    for node in list(graph_module.graph.nodes):
        relu = node.all_input_nodes[0] if node.all_input_nodes else None
        if relu is None or not (
            _is_one_of(graph_module, node, POOLS) and _is_one_of(graph_module, relu, RELUS)
        ):
            continue
        if len(relu.users) == 1:
            node.replace_input_with(relu, relu.all_input_nodes[0])
            node.replace_all_uses_with(relu, delete_user_cb=lambda user, relu=relu: user is not relu)
            relu.replace_input_with(relu.all_input_nodes[0], node)
            node.append(relu)
    graph_module.graph.lint()
    return graph_module


def _is_one_of(graph_module: fx.GraphModule, node: fx.Node, kinds: tuple[Any, ...]) -> bool:
    target: Any = node.target
    return (type(graph_module.get_submodule(str(target))) if node.op == "call_module" else target) in kinds
