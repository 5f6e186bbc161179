"""Operations in place become plain ones in a traced graph: what a layer returned must stay what it was.

Attention, the device's gradients and double backward read layers' outputs after the forward pass.
"""

from __future__ import annotations

import inspect
import operator
from copy import copy
from typing import Any, cast

import torch
from torch import fx, nn

PLAIN: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
}
FRESH: tuple[Any, ...] = (
    nn.Conv2d,
    nn.Linear,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    *PLAIN.values(),
    torch.cat,
)
"""What returns memory that nothing else sees."""


def without_in_place(graph_module: fx.GraphModule) -> fx.GraphModule:
    """The same graph where nothing is changed in place.

    Raises:
        ValueError: an operation in place whose old value may be read by others, too, or that is given as a function
            (torch.sigmoid_, out=...).
    """
    for node in graph_module.graph.nodes:
        _refuse_without_plain(node)
        if _is_in_place(graph_module, node):
            if not _is_unshared(graph_module, node.all_input_nodes[0]):
                raise ValueError(
                    f"{node.name} changes in place what others read; use inplace = False, or x + y for x += y"
                )
            _make_plain(graph_module, node)
    return graph_module


def _refuse_without_plain(node: fx.Node) -> None:
    """Functions that write into what they are given: their readers are not told from the graph."""
    if node.op != "call_function" or node.target in PLAIN:
        return
    name = getattr(node.target, "__name__", "")
    if _ends_in_place(name):
        raise ValueError(f"{name} changes its input in place; use {name[:-1]}")
    if "out" in node.kwargs:
        raise ValueError(f"{name} writes into another tensor; leave out = ... away")


def _make_plain(graph_module: fx.GraphModule, node: fx.Node) -> None:
    if node.op == "call_module":
        plain: Any = copy(graph_module.get_submodule(str(node.target)))
        plain.inplace = False
        graph_module.add_submodule(str(node.target), plain)
    elif node.op == "call_method":
        node.target = str(node.target)[:-1]
    elif node.target in PLAIN:
        node.target = PLAIN[node.target]
    else:
        call: Any = node.target
        given = inspect.signature(call).bind(*node.args, **node.kwargs)
        given.arguments["inplace"] = False
        node.args, node.kwargs = given.args, given.kwargs


def _is_in_place(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return getattr(graph_module.get_submodule(str(node.target)), "inplace", False) is True
    if node.op == "call_method":
        return _ends_in_place(str(node.target))
    return node.op == "call_function" and (node.target in PLAIN or _asked(node))


def _ends_in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _asked(node: fx.Node) -> bool:
    try:
        given = inspect.signature(cast(Any, node.target)).bind(*node.args, **node.kwargs).arguments
    except (TypeError, ValueError):  # torch's built-in functions have no signature, and no such argument
        return False
    return given.get("inplace", False) is True


def _is_unshared(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value has one reader and no memory in common with another value."""
    if len(node.users) != 1:
        return False
    kind = type(graph_module.get_submodule(str(node.target))) if node.op == "call_module" else node.target
    return kind in FRESH or (kind is nn.Identity and _is_unshared(graph_module, node.all_input_nodes[0]))
