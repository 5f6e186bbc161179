"""FiLM: a scale and a shift per channel, put after every block of a backbone (Perez et al., AAAI 2018)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..models import Conv4, ResNet12

CHAINS = (nn.Sequential, Conv4, ResNet12)
"""Modules that call their children one after the other."""
POOLS = (nn.MaxPool2d, nn.AvgPool2d)


class Film(nn.Module):
    """y = x * scale + shift per channel.

    Attributes:
        scale: (C,), 1 until a generator says otherwise.
        shift: (C,), 0 until then.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return x * self.scale.reshape(-1, 1, 1) + self.shift.reshape(-1, 1, 1)


def put_films(module: nn.Module, sample_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Put a `Film` after every block, in place; all other names stay what they are.

    A block is a module with at least two convolutions in a chain of modules (a residual block or an inverted
    residual), or what a pool ends in a chain of single layers (4Conv). Its film is its next sibling, NAME_film.

    Args:
        module: the backbone, in eval mode.
        sample_shape: (C, H, W).

    Returns:
        Names of the films in the order in which they are applied.

    Raises:
        ValueError: the backbone has no block, or one that is not computed where its place in the module says.
    """
    ends = dict(_ends(module))
    if not ends:
        raise ValueError(
            f"FiLM layers go after blocks of at least two convolutions, but {type(module).__name__} has none in "
            "an nn.Sequential: use resnet18, resnet12, efficientnet-b0 or conv4, or set method.film = false"
        )
    channels = _channels(module, ends, sample_shape)
    for parent in {name.rpartition(".")[0]: None for name in ends}:
        _rebuild(module.get_submodule(parent), parent, channels)
    names = tuple(f"{name}_film" for name in channels)
    films = {name: module.get_submodule(name) for name in names}
    if tuple(_channels(module, films, sample_shape)) != names:
        raise ValueError(
            f"FiLM layers cannot be put into {type(module).__name__}: it does not call the blocks of its "
            "nn.Sequential one after the other; set method.film = false"
        )
    return names


def film_sizes(module: nn.Module, names: Sequence[str]) -> tuple[int, ...]:
    """Channels of each film."""
    return tuple(len(module.get_parameter(f"{name}.scale")) for name in names)


def film_parameters(values: Tensor, names: Sequence[str], sizes: Sequence[int]) -> dict[str, Tensor]:
    """Parameters of the films by name, from one vector (F,): for each film [scale (C), shift (C)]."""
    parts = torch.split(values, [size for size in sizes for _ in range(2)])
    keys = [f"{name}.{part}" for name in names for part in ("scale", "shift")]
    return dict(zip(keys, parts, strict=True))


def neutral(sizes: Sequence[int]) -> Tensor:
    """The vector (F,) of films that change nothing: scales 1, shifts 0."""
    return torch.tensor([value for size in sizes for value in (1.0, 0.0) for _ in range(size)])


def _ends(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that end a block, by name."""
    chain = isinstance(module, CHAINS)
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if chain and _is_end(module, child):
            yield path, child
        elif isinstance(child, CHAINS) or not chain:
            yield from _ends(child, f"{path}.")


def _is_end(parent: nn.Module, child: nn.Module) -> bool:
    if isinstance(parent, Conv4):
        return isinstance(child, POOLS)
    convolutions = sum(isinstance(part, nn.Conv2d) for part in child.modules())
    return convolutions >= 2 and not isinstance(child, CHAINS)


def _channels(
    module: nn.Module, parts: dict[str, nn.Module], sample_shape: tuple[int, ...]
) -> dict[str, int]:
    """Channels of what the parts return, in the order in which they are computed."""
    found: dict[str, int] = {}

    def note(name: str, output: Tensor) -> None:
        found[name] = output.shape[1]

    handles = [
        part.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, part in parts.items()
    ]
    try:
        with torch.no_grad():
            module(torch.zeros(1, *sample_shape))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _rebuild(parent: nn.Module, path: str, channels: dict[str, int]) -> None:
    """Register the children again in their order, each block's film behind it."""
    for name, child in list(parent.named_children()):
        delattr(parent, name)
        parent.add_module(name, child)
        own = channels.get(f"{path}.{name}" if path else name)
        if own is not None:
            parent.add_module(f"{name}_film", Film(own))
