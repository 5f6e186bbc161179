"""Class means, covariances and Mahalanobis distances against their definitions and finite differences."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.amortized.mahalanobis import (
    class_means,
    covariances,
    inverse_factors,
    mahalanobis,
    squared_distances,
)

LABELS = torch.tensor([0, 2, 1, 2, 2, 0])


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_class_means_are_those_of_the_classes():
    features = numbers(6, 4)
    expected = [features[c == LABELS].mean(0) for c in range(3)]
    torch.testing.assert_close(class_means(features, LABELS, 3), torch.stack(expected))


def test_covariances_are_blended_as_in_the_paper():
    features = numbers(6, 4)
    task = torch.cov(features.T)
    unit = torch.eye(4, dtype=torch.float64)
    expected = [
        2 / 3 * torch.cov(features[LABELS == 0].T) + 1 / 3 * task + unit,
        1 / 2 * torch.zeros_like(task) + 1 / 2 * task + unit,  # one sample
        3 / 4 * torch.cov(features[LABELS == 2].T) + 1 / 4 * task + unit,
    ]
    torch.testing.assert_close(covariances(features, LABELS, 3), torch.stack(expected))


def test_distances_are_those_of_the_inverse_matrices():
    features, queries = numbers(6, 4), numbers(5, 4, seed=1)
    means, matrices = class_means(features, LABELS, 3), covariances(features, LABELS, 3)
    away = queries[:, None] - means
    expected = torch.einsum("mci,cij,mcj->mc", away, torch.linalg.inv(matrices), away)
    torch.testing.assert_close(mahalanobis(queries, means, matrices), expected)
    scaled = torch.einsum("cij,mcj->mci", inverse_factors(matrices), away)
    torch.testing.assert_close(scaled.square().sum(-1), expected)
    unit = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    torch.testing.assert_close(mahalanobis(queries, means, unit), squared_distances(queries, means))


@pytest.mark.parametrize("labels", [LABELS, torch.arange(6)], ids=["mixed", "one shot"])
def test_the_gradient_of_the_head_is_that_of_finite_differences(labels):
    ways = int(labels.max()) + 1

    def logits(features, queries):
        means, matrices = class_means(features, labels, ways), covariances(features, labels, ways)
        return -mahalanobis(queries, means, matrices)

    features, queries = numbers(6, 3).requires_grad_(), numbers(2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(logits, (features, queries), eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
def test_covariances_are_positive_definite_with_one_shot_and_more_features_than_samples(scale):
    features = scale * numbers(5, 64).float()
    matrices = covariances(features, torch.arange(5), 5)
    assert torch.linalg.eigvalsh(matrices.double()).min() > 0.99
    means = class_means(features, torch.arange(5), 5)
    assert mahalanobis(features, means, matrices).isfinite().all()


def test_one_sample_in_all_is_enough():
    assert torch.equal(covariances(numbers(1, 3), torch.tensor([0]), 1)[0], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0])
def test_few_large_features_in_float32_are_told_apart_as_in_float64(scale):
    """With covariances in float32 the classes of these queries are chance from a scale of 30 on."""
    centres, labels = numbers(5, 256).abs() / 4, torch.arange(225) % 5
    every = (scale * (centres[labels] + numbers(225, 256, seed=1)).clamp(min=0)).float()
    features, queries = every[:25], every[25:]

    def distances(features, queries):
        means = class_means(features, labels[:25], 5)
        return mahalanobis(queries, means, covariances(features, labels[:25], 5))

    found, exact = distances(features, queries), distances(features.double(), queries.double())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0)
    assert (found.argmin(1) == exact.argmin(1)).float().mean() > 0.97


@pytest.mark.parametrize(("scale", "samples"), [(1e4, 3), (1e7, 70)])
def test_covariances_in_which_the_1_is_lost_are_refused(scale, samples):
    features = scale * numbers(samples, 64).float()
    labels = torch.arange(samples) % 3
    with pytest.raises(
        ValueError, match=rf"with {samples} samples of 64 features: beside it rounding swamps"
    ):
        covariances(features, labels, 3)
    assert covariances(1e-3 * features, labels, 3).dtype == torch.float64


def test_a_matrix_that_is_not_positive_definite_is_refused():
    matrices = torch.eye(3).expand(2, 3, 3) * torch.tensor([1.0, -1.0])[:, None, None]
    with pytest.raises(ValueError, match=r"covariance of class 1 is not positive definite in torch\.float32"):
        mahalanobis(numbers(2, 3).float(), numbers(2, 3).float(), matrices)
