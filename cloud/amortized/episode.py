"""One task of an amortized learner: its support values in chunks without graph, its gradient through H.

Levels are the nested sums over the support set: the set encoder's mean, and what the head sums up of the features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..lite import Forward, LiteConfig, Subset, estimate, exact_values, values_with_graph
from ..tasks.task import Samples, Task
from .film import film_parameters, film_sizes
from .modules import Modules

ENCODER, FEATURES = 0, 1
"""The two levels."""

Weights = Mapping[str, Tensor]
Subsets = Callable[[int], Subset | None]
"""H of a level; None: the whole support set."""


@dataclass(frozen=True)
class Exact:
    """What all N support samples give, without graph.

    Attributes:
        embeddings: of the set encoder, (N, E); None without FiLM layers.
        features: (N, D), under the FiLM parameters that the embeddings give.
    """

    embeddings: Tensor | None
    features: Tensor


class Episode:
    """A task seen through a learner's modules with given weights.

    Args:
        modules: structure only; their own weights are not read.
        weights: by name, PART.NAME; gradients flow to those that require them.
        lite: sizes of the pieces, precision.
        task: the task.
        fixed_features: whether nothing learned is below the features, so that none of them needs a graph.
    """

    def __init__(
        self, modules: Modules, weights: Weights, lite: LiteConfig, task: Task, fixed_features: bool
    ) -> None:
        self.modules, self.lite, self.task = modules, lite, task
        self.fixed_features = fixed_features
        self._like = next(iter(weights.values()))
        self._weights = weights
        self._sizes = film_sizes(modules.extractor, modules.films)

    def exact(self) -> Exact:
        """Everything once, in chunks of `lite.chunk` samples."""
        with torch.no_grad():
            embeddings = self._exact(self._embed) if self.modules.films else None
            film = None if embeddings is None else self.film_of(embeddings)
            return Exact(embeddings, self._exact(self.extract(film)))

    def film(self, exact: Exact | None, subsets: Subsets) -> Tensor | None:
        """FiLM parameters (F,) with the gradient of H; None without FiLM layers."""
        if not self.modules.films:
            return None
        values = None if exact is None else exact.embeddings
        return self.film_of(self._estimated(self._embed, values, subsets(ENCODER)))

    def features(self, film: Tensor | None, exact: Exact | None, subsets: Subsets, queries: Tensor) -> Tensor:
        """Features of the support set, (N, D), with the gradient of H; those of some queries are (m, D)."""
        values = None if exact is None else exact.features
        if self.fixed_features:
            assert values is not None, "they are the same for all queries"
            return values
        control = queries.mean(0) if self.lite.controlled else None
        return self._estimated(self.extract(film), values, subsets(FEATURES), control)

    def queries(self, rows: Tensor, film: Tensor | None) -> Tensor:
        """Features of query samples, (m, D), with their whole graph."""
        return self._with_graph(self.extract(film), self.task.query, rows)

    def film_of(self, embeddings: Tensor) -> Tensor:
        """FiLM parameters (F,) from the embeddings of a support set, (N, E)."""
        return self.call("film_generator", embeddings.mean(0, keepdim=True))[0]

    def extract(self, film: Tensor | None) -> Forward:
        """The extractor under these FiLM parameters: (n, C, H, W) -> (n, D)."""
        own = self._of("extractor")
        if film is not None:
            own |= film_parameters(film, self.modules.films, self._sizes)
        return lambda x: self._run(self.modules.extractor, own, x)

    def call(self, part: str, x: Tensor) -> Tensor:
        """One of the generators on x."""
        return _call(getattr(self.modules, part), self._of(part), x)

    def _embed(self, x: Tensor) -> Tensor:
        assert self.modules.set_encoder is not None
        return self._run(self.modules.set_encoder, self._of("set_encoder"), x)

    def _of(self, part: str) -> dict[str, Tensor]:
        prefix = f"{part}."
        return {
            name.removeprefix(prefix): value
            for name, value in self._weights.items()
            if name.startswith(prefix)
        }

    def _run(self, module: nn.Module, own: Weights, x: Tensor) -> Tensor:
        """A module on samples, where the weights are and in the precision asked for."""
        with self.lite.autocast(self._like.device):
            return _call(module, own, x.to(self._like)).to(self._like.dtype)

    def _exact(self, forward: Forward) -> Tensor:
        return exact_values(forward, self.task.support, self.lite.chunk)

    def _estimated(
        self, forward: Forward, values: Tensor | None, subset: Subset | None, control: Tensor | None = None
    ) -> Tensor:
        samples = self.task.support
        if values is None or subset is None:
            return self._with_graph(forward, samples, torch.arange(len(samples)))
        return estimate(values, self._with_graph(forward, samples, subset.rows), subset, control)

    def _with_graph(self, forward: Forward, samples: Samples, rows: Tensor) -> Tensor:
        return values_with_graph(forward, samples.take(rows), self.lite.checkpoint)


def _call(module: nn.Module, own: Weights, x: Tensor) -> Tensor:
    found: Tensor = functional_call(module, dict(own), (x,))
    return found
