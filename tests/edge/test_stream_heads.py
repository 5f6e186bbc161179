"""Heads from features, against plain NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from edge_adapt.edge.bundle.streams import Streams
from edge_adapt.edge.program import Layer, Op, Program, Tensor
from edge_adapt.edge.stream.heads import Head, Means, finish_bytes, head_of
from numpy.typing import NDArray

from ..timing import least_seconds


def streams_of(kind: str, classes: int, width: int) -> Streams:
    """A head alone, behind features."""
    linear = kind != "simple-cnaps"
    shapes = (
        {"w": (classes, width), "b": (classes,)}
        if linear
        else {"w": (classes, width), "b": (classes, width, width)}
    )
    tensors = {name: Tensor(name, shape, role="param") for name, shape in shapes.items()}
    tensors |= {name: Tensor(name, ("N", size)) for name, size in (("features", width), ("logits", classes))}
    layer = Layer("head", "fc" if linear else "mahalanobis", ("w", "b"), (), 0)
    op = Op("Fc" if linear else "Mahalanobis", ("features", "w", "b"), ("logits",), "head")
    outputs = {"features": "features", "logits": "logits"}
    program = Program(tensors, {"forward": (op,)}, (layer,), {"images": "features"}, outputs, 1)
    return Streams(kind, program, {})


def computed(streams: Streams, rows: NDArray[np.float32], labels: NDArray[np.int64]) -> Head:
    """The head of a support set; a generated one is the class mean, and its sum."""
    head = head_of(streams, Means(np.full((streams.classes, streams.width), np.nan)))
    for row, label in zip(rows, labels, strict=True):
        head.add(int(label), row)
    workspace = np.full(finish_bytes(streams), 255, np.uint8)
    head.finish(int(labels.max()) + 1, workspace, lambda mean: np.append(mean, mean.sum()).astype(np.float32))
    return head


def precision(rows: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float64]:
    """The regularised covariance of a class (Bateni et al. 2020, eq. 2)."""
    share = len(own) / (len(own) + 1)
    blend = (1 - share) * np.cov(rows.T.astype(np.float64)) + np.eye(rows.shape[1])
    return blend + share * np.cov(own.T.astype(np.float64)) if len(own) > 1 else blend


@pytest.mark.parametrize(("width", "offset", "seed"), [(1, 0, 0), (5, 100, 1), (33, -30, 2), (96, 1000, 3)])
def test_covariances_are_numpys_however_far_features_are_from_0(width: int, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(23, width)) * rng.uniform(0.1, 5, width) + offset).astype(np.float32)
    labels = rng.permutation(np.array([0] * 9 + [1] + [2] * 13))
    means, factors = computed(streams_of("simple-cnaps", 5, width), rows, labels).params.values()
    for label in range(3):
        own = rows[labels == label]
        assert np.allclose(means[label], own.mean(0, np.float64), rtol=1e-6, atol=1e-6)
        found = factors[label].astype(np.float64) @ np.atleast_2d(
            np.linalg.cholesky(np.atleast_2d(precision(rows, own)))
        )
        assert np.allclose(found, np.eye(width), rtol=0, atol=2e-4)
        assert not np.triu(factors[label], 1).any()
    queries = (rng.normal(size=(7, width)) * 3 + offset).astype(np.float32)
    away = np.einsum("cij,ncj->nci", factors, queries[:, None] - means)
    assert (np.square(away[:, 3:]).sum(-1) > 9e36).all(), "classes without samples are as far away as can be"
    assert np.isfinite(np.square(away).sum(-1)).all()


def relu_features(rng: np.random.Generator, count: int, scale: float) -> NDArray[np.float32]:
    """256 features of 5 classes in turn, which overlap."""
    centres = np.abs(np.random.default_rng(0).normal(size=(5, 256))) / 4
    spread = centres[np.arange(count) % 5] + rng.normal(size=(count, 256))
    return (np.maximum(spread, 0) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", [1, 30, 100, 300])
def test_few_samples_of_large_features_are_told_apart_as_in_float64(scale: float) -> None:
    """With sums in float32 distances are off by up to 4e-3, and what they say of classes is chance."""
    rng = np.random.default_rng(1)
    rows, queries, labels = relu_features(rng, 25, scale), relu_features(rng, 200, scale), np.arange(25) % 5
    means, factors = computed(streams_of("simple-cnaps", 5, 256), rows, labels).params.values()
    found, exact = np.zeros((2, 200, 5))
    for label, (mean, factor) in enumerate(zip(means, factors, strict=True)):
        own = rows[labels == label]
        away = queries - own.mean(0, np.float64)
        exact[:, label] = (away @ np.linalg.inv(precision(rows, own)) * away).sum(1)
        found[:, label] = np.square(((queries - mean) @ factor.T).astype(np.float64)).sum(1)
    assert np.abs(found / exact - 1).max() < 1e-6
    assert (found.argmin(1) == exact.argmin(1)).mean() > 0.95


def test_features_too_large_for_distances_in_float32_are_refused() -> None:
    rng = np.random.default_rng(1)
    rows, labels = relu_features(rng, 25, 1000), np.arange(25) % 5
    with pytest.raises(ValueError, match=r"trace \d\S*e\+0\d, with 25 samples of 256 features"):
        computed(streams_of("simple-cnaps", 5, 256), rows, labels)
    few = (
        rng.normal(size=(40, 3)).astype(np.float32) * 1e5
    )  # more samples than features: distances stay small
    computed(streams_of("simple-cnaps", 5, 3), few, np.arange(40) % 5)


def test_linear_heads_are_prototypes_or_generated() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(12, 7)).astype(np.float32), np.array([0, 0, 2, 2, 1, 0, 1, 2, 2, 1, 0, 1])
    centres = np.array([rows[labels == c].mean(0, np.float64) for c in range(3)])
    weight, bias = computed(streams_of("prototypes", 4, 7), rows, labels).params.values()
    queries = rng.normal(size=(9, 7)).astype(np.float32)
    same = queries @ weight[:3].T + bias[:3] + np.square(queries[:, None] - centres).sum(-1)
    assert np.allclose(same, same[:, :1], rtol=0, atol=1e-5)
    assert not weight[3].any()
    assert bias[3] < -9e36
    weight, bias = computed(streams_of("cnaps", 4, 7), rows, labels).params.values()
    assert np.allclose(weight[:3], centres, atol=1e-6)
    assert np.allclose(bias[:3], centres.sum(1), atol=1e-6)
    assert not weight[3].any()
    assert bias[3] < -9e36


@pytest.mark.parametrize("offset", [0, 1000])
def test_prototypes_of_features_far_from_0_lose_nothing(offset: float) -> None:
    """Weights 2 mu and biases -|mu|^2 were off by 500 in float32."""
    rng = np.random.default_rng(0)
    rows, queries = ((rng.normal(size=(n, 512)) + offset).astype(np.float32) for n in (25, 100))
    labels = np.arange(25) % 5
    weight, bias = computed(streams_of("prototypes", 5, 512), rows, labels).params.values()
    centres = np.array([rows[labels == c].mean(0, np.float64) for c in range(5)])
    same = queries @ weight.T + bias + np.square(queries[:, None].astype(np.float64) - centres).sum(-1)
    assert np.abs(same - same.mean(1, keepdims=True)).max() < 5e-5 * max(1, offset)


def test_a_head_of_512_features_is_computed_within_seconds() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(50, 512)).astype(np.float32) + 3, np.arange(50) % 5
    means, factors = computed(streams_of("simple-cnaps", 5, 512), rows, labels).params.values()
    assert least_seconds(lambda: computed(streams_of("simple-cnaps", 5, 512), rows, labels)) < 5
    factor = factors[4].astype(np.float64)
    found = factor @ precision(rows, rows[labels == 4]) @ factor.T
    assert np.allclose(found, np.eye(512), rtol=0, atol=1e-4)
    assert np.allclose(means[4], rows[labels == 4].mean(0), rtol=0, atol=1e-5)


def test_features_too_large_for_a_covariance_are_refused() -> None:
    rows = np.array([[1e30, 0], [-1e30, 0], [0, 1]], np.float32)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="rounding swamps the 1"),
    ):
        computed(streams_of("simple-cnaps", 2, 2), rows, np.array([0, 0, 1]))
