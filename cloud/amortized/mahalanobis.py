"""Heads without parameters of their own: class means, and distances with a covariance of every class.

Shapes: N support samples, M queries, D features. Source: Bateni et al. (Simple CNAPS), CVPR 2020, eq. 1 to 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean features of every class, (ways, D), of features (N, D) with labels (N,), each class at least once."""
    members = F.one_hot(labels.to(features.device), ways).to(features.dtype)
    return (members / members.sum(0)).T @ features


def squared_distances(queries: Tensor, means: Tensor) -> Tensor:
    """|f - mu_c|^2, (M, ways), of queries (M, D) and means (ways, D)."""
    return (queries[:, None] - means).square().sum(-1)


def covariances(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Q_c = r_c Sigma_c + (1 - r_c) Sigma + I with r_c = k_c / (k_c + 1), (ways, D, D).

    Sigma_c is the covariance of the k_c samples of class c (divided by k_c - 1; 0 for one sample), Sigma that of
    all samples (divided by N - 1). Positive definite with one sample per class and fewer samples than features.

    Args:
        features: (N, D).
        labels: int64 (N,), each class at least once.
        ways: number of classes.
    """
    labels = labels.to(features.device)
    task = _covariance(features)
    unit = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    blended = []
    for c in range(ways):
        own = features[labels == c]
        share = len(own) / (len(own) + 1)
        blended.append(share * _covariance(own) + (1 - share) * task + unit)
    return torch.stack(blended)


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / max(1, len(x) - 1)


def cholesky(matrices: Tensor) -> Tensor:
    """Lower triangular factors of positive definite matrices, (ways, D, D).

    Raises:
        ValueError: rounding has left a matrix that is not positive definite.
    """
    factors: Tensor
    factors, failed = torch.linalg.cholesky_ex(matrices)
    if bool(failed.any()):
        worst = float(matrices.detach().abs().max())
        raise ValueError(
            f"the covariance of class {int(failed.nonzero()[0])} is not positive definite in {matrices.dtype}: its "
            f"entries reach {worst:.3g}, so adding 1 is lost in rounding; the extractor's features are too large"
        )
    return factors


def inverse_factors(matrices: Tensor) -> Tensor:
    """Inverses of the Cholesky factors, lower triangular (ways, D, D): |factors_c (f - mu_c)|^2 are distances."""
    unit = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    unit = unit.expand_as(matrices)
    found: Tensor = torch.linalg.solve_triangular(cholesky(matrices), unit, upper=False)
    return found


def mahalanobis(queries: Tensor, means: Tensor, matrices: Tensor) -> Tensor:
    """(f - mu_c)^T Q_c^-1 (f - mu_c), (M, ways).

    Args:
        queries: f, (M, D).
        means: mu, (ways, D).
        matrices: Q, (ways, D, D), positive definite.

    Raises:
        ValueError: see `cholesky`.
    """
    away = (queries - means[:, None]).mT
    scaled: Tensor = torch.linalg.solve_triangular(cholesky(matrices), away, upper=False)
    return scaled.square().sum(1).T
