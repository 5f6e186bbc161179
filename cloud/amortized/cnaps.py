"""CNAPs: a frozen extractor that FiLM layers adapt to the task, and a classifier generated from class means."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from .amortized import Amortized
from .episode import Episode
from .film import film_sizes, put_films
from .generators import FilmGenerator, HeadGenerator
from .mahalanobis import class_means
from .modules import Modules
from .set_encoder import CHANNELS, SetEncoder


class FilmAdapted(Amortized):
    """What CNAPs and Simple CNAPs share: set encoder and FiLM generator around a frozen extractor."""

    frozen: ClassVar[bool] = True

    def build(self, extractor: nn.Module, features: int) -> Modules:
        """With FiLM layers after every block; without them (method.film = false) the extractor alone."""
        if not self.method.film:
            return super().build(extractor, features)
        films = put_films(extractor, self.sample_shape)
        generator = FilmGenerator(CHANNELS, film_sizes(extractor, films))
        return Modules(extractor, films, SetEncoder(self.sample_shape), generator, None, features)


class Cnaps(FilmAdapted):
    """Linear classifier, weights and bias of each class generated from its mean."""

    name: ClassVar[str] = "cnaps"
    paper: ClassVar[str] = "Requeima et al., NeurIPS 2019"
    summary: ClassVar[str] = "generates FiLM parameters and a linear classifier; the extractor stays frozen"
    uses: ClassVar[frozenset[str]] = frozenset({"film", "film_penalty"})

    def build(self, extractor: nn.Module, features: int) -> Modules:
        """With the generator of the classifier."""
        return replace(super().build(extractor, features), head_generator=HeadGenerator(features))

    def head(self, episode: Episode, features: Tensor, queries: Tensor) -> Tensor:
        """Queries times the generated weights, plus the generated biases."""
        task = episode.task
        generated = episode.call("head_generator", class_means(features, task.support_y, task.ways))
        return queries @ generated[:, :-1].T + generated[:, -1]
