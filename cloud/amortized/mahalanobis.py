"""Heads without parameters of their own: class means, and distances with a covariance of every class.

Shapes: N support samples, M queries, D features. Source: Bateni et al. (Simple CNAPS), CVPR 2020, eq. 1 to 3.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SINGLE, DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
LEAST_UNIT, MOST_SPACING = 1e-4, 4.0
"""As on the device: the most that rounding may leave beside a 1, and the spacing of float32 distances."""


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
    all samples (divided by N - 1). Positive definite with one sample per class and fewer samples than features. In
    float64, whatever the features are: where they are fewer than D, distances are decided by the I, which the
    rounding of float32 sums swamps already at features of about 30.

    Args:
        features: (N, D).
        labels: int64 (N,), each class at least once.
        ways: number of classes.

    Raises:
        ValueError: features so large that I is swamped all the same.
    """
    features, labels = features.double(), labels.to(features.device)
    task = _covariance(features)
    unit = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    blended = []
    for c in range(ways):
        own = features[labels == c]
        share = len(own) / (len(own) + 1)
        blended.append(share * _covariance(own) + (1 - share) * task + unit)
    return _checked(torch.stack(blended), len(features))


def _checked(matrices: Tensor, samples: int) -> Tensor:
    """The covariances as they are, if float64 holds them and float32 the distances of samples to come.

    Of those a share (D - N + 1) / D of the trace is expected to lie outside of what N samples span.
    """
    width = matrices.shape[-1]
    trace = float(matrices.detach().diagonal(dim1=1, dim2=2).sum(1).max())
    spacing = SINGLE * trace * max(0, width - samples + 1) / width
    if not (DOUBLE * trace < LEAST_UNIT and spacing < MOST_SPACING):
        raise ValueError(
            f"the covariance of a class has trace {trace:.3g}, with {samples} samples of {width} features: beside it"
            " rounding swamps the 1 that is added; the extractor's features are too large"
        )
    return matrices


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
    """(f - mu_c)^T Q_c^-1 (f - mu_c), (M, ways), computed in the type of Q.

    Args:
        queries: f, (M, D).
        means: mu, (ways, D).
        matrices: Q, (ways, D, D), positive definite.

    Raises:
        ValueError: see `cholesky`.
    """
    away = (queries.to(matrices.dtype) - means.to(matrices.dtype)[:, None]).mT
    scaled: Tensor = torch.linalg.solve_triangular(cholesky(matrices), away, upper=False)
    return scaled.square().sum(1).T.to(queries.dtype)
