"""Packed triangles against whole matrices."""

from __future__ import annotations

import numpy as np
import pytest
from edge_adapt.edge.stream.packed import add_outer, add_unpacked, packed_elements


@pytest.mark.parametrize("width", [1, 2, 63, 65, 200, 700])
def test_packed_sums_of_outer_products_are_those_of_whole_matrices(width: int) -> None:
    rng = np.random.default_rng(width)
    vectors = rng.normal(size=(3, width))
    packed = np.zeros(packed_elements(width))
    for vector in vectors:
        add_outer(packed, vector)
    start = rng.normal(size=(width, width))
    found = start.copy()
    add_unpacked(found, packed, -0.5)
    expected = start - 0.5 * np.tril(vectors.T @ vectors)
    assert np.allclose(found, expected, rtol=0, atol=1e-12)
    assert np.array_equal(np.triu(found, 1), np.triu(start, 1))
