"""ProtoNets: a class is the mean of its samples' features, and the nearest class mean wins."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .amortized import Amortized
from .episode import Episode
from .mahalanobis import class_means, squared_distances


class ProtoNets(Amortized):
    """logit_c = -|f - mu_c|^2; the whole extractor is learned, from any backbone."""

    name: ClassVar[str] = "protonets"
    paper: ClassVar[str] = "Snell et al., NeurIPS 2017"
    summary: ClassVar[str] = "class means of features, nearest mean; learns the whole extractor"
    frozen: ClassVar[bool] = False

    def head(self, episode: Episode, features: Tensor, queries: Tensor) -> Tensor:
        """Negative squared distances to the class means."""
        task = episode.task
        return -squared_distances(queries, class_means(features, task.support_y, task.ways))
