"""Simple CNAPs: as CNAPs, but a class is a normal distribution, and the smallest Mahalanobis distance wins."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .cnaps import FilmAdapted
from .episode import Episode
from .mahalanobis import class_means, covariances, mahalanobis, squared_distances


class SimpleCnaps(FilmAdapted):
    """logit_c = -(f - mu_c)^T Q_c^-1 (f - mu_c), Q_c from the support set; the head has no weights of its own."""

    name: ClassVar[str] = "simple-cnaps"
    paper: ClassVar[str] = "Bateni et al., CVPR 2020"
    summary: ClassVar[str] = "generates FiLM parameters, Mahalanobis distances; the extractor stays frozen"
    uses: ClassVar[frozenset[str]] = frozenset({"film", "film_penalty", "covariance"})

    def head(self, episode: Episode, features: Tensor, queries: Tensor) -> Tensor:
        """Negative Mahalanobis distances; squared distances where the covariance is the identity."""
        labels, ways = episode.task.support_y, episode.task.ways
        means = class_means(features, labels, ways)
        if self.method.covariance == "identity":
            return -squared_distances(queries, means)
        return -mahalanobis(queries, means, covariances(features, labels, ways))
