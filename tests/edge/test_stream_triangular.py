"""Cholesky factors and inverses in place, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from edge_adapt.edge.stream.triangular import BLOCK, cholesky, invert_lower

SIZES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 5]


@pytest.mark.parametrize("size", SIZES)
def test_factor_and_inverse_are_those_of_lapack(size: int) -> None:
    rng = np.random.default_rng(size)
    root = rng.normal(size=(size, size))
    whole = root @ root.T + np.eye(size)
    a, strip = np.tril(whole), np.full((size, BLOCK), np.nan)
    cholesky(a, strip)
    expected = np.linalg.cholesky(whole)
    assert np.allclose(a, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    assert not np.triu(a, 1).any()
    invert_lower(a, strip)
    assert np.allclose(a @ expected, np.eye(size), rtol=0, atol=1e-9)
    assert not np.triu(a, 1).any()


def test_what_is_above_the_diagonal_is_not_read() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(70, 70))
    whole = root @ root.T + np.eye(70)
    upper = np.triu(np.full((70, 70), 1e30), 1)
    a, strip = np.tril(whole) + upper, np.zeros((70, BLOCK))
    cholesky(a, strip)
    assert np.array_equal(a, np.tril(a))
    assert np.allclose(a, np.linalg.cholesky(whole))


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_a_matrix_that_is_not_positive_definite_is_refused(value: float) -> None:
    a = np.eye(40)
    a[37, 37] = value
    with pytest.raises(ValueError, match="not positive definite"):
        cholesky(a, np.zeros((40, BLOCK)))
