"""The parts of a learner by name: what its weights belong to, and what an exporter gets."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

PARTS = ("extractor", "set_encoder", "film_generator", "head_generator")


@dataclass(frozen=True)
class Modules:
    """A learner's modules, all in eval mode. Weights are named PART.NAME, such as extractor.fc.weight.

    Attributes:
        extractor: (n, C, H, W) -> (n, D), with `Film` layers inside where the learner has them.
        films: names of these layers in the extractor, in order.
        set_encoder: (n, C, H, W) -> (n, E); None where the learner has no FiLM layers, as the next.
        film_generator: (1, E) -> (1, F): for each film its final [scale (C), shift (C)].
        head_generator: class means (ways, D) -> (ways, D + 1), the last column the bias; None where the head is
            not generated.
        features: D.
    """

    extractor: nn.Module
    films: tuple[str, ...]
    set_encoder: nn.Module | None
    film_generator: nn.Module | None
    head_generator: nn.Module | None
    features: int

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all weights and frozen statistics by name; films have none, they are generated."""
        return {name: value.detach().clone() for name, value in self._named()}

    def statistics(self) -> frozenset[str]:
        """Names of those of `tensors()` that are no weights but frozen statistics."""
        return frozenset(f"extractor.{name}" for name, _ in self.extractor.named_buffers())

    def in_eval_mode(self) -> Modules:
        """The modules themselves, after telling them."""
        for part in PARTS:
            module: nn.Module | None = getattr(self, part)
            if module is not None:
                module.eval()
        return self

    def carrying(self, weights: Mapping[str, Tensor]) -> Modules:
        """Copies of the modules with these weights in them.

        Args:
            weights: by name, all of `tensors()`.

        Raises:
            ValueError: a name too much or too few, or another shape.
        """
        own = self.tensors()
        shapes = ({name: tuple(value.shape) for name, value in found.items()} for found in (own, weights))
        expected, given = shapes
        different = sorted(name for name in {*expected, *given} if expected.get(name) != given.get(name))
        if different:
            name = different[0]
            raise ValueError(
                f"{name}: expected {expected.get(name, 'nothing')}, got {given.get(name, 'nothing')}"
            )
        copied = replace(self, **{part: copy.deepcopy(getattr(self, part)) for part in PARTS})
        with torch.no_grad():
            for name, value in copied._named():
                value.copy_(weights[name])
        return copied

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for part in PARTS:
            module: nn.Module | None = getattr(self, part)
            if module is None:
                continue
            generated = tuple(f"{film}." for film in self.films) if part == "extractor" else ()
            for name, value in (*module.named_parameters(), *module.named_buffers()):
                if value.is_floating_point() and not name.startswith(generated):
                    yield f"{part}.{name}", value
