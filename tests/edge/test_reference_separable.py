"""Average pooling and resizing against torch, and their gradients against autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.reference.separable import filled, linear_entries, nearest_entries, window_entries
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .kernel_cases import garbage, run

torch = pytest.importorskip("torch")
F = torch.nn.functional

few = settings(max_examples=60, deadline=None, derandomize=True)
SIZES = st.lists(st.integers(1, 8), min_size=1, max_size=2)


def check(kind: str, x: Any, expected: Any, attrs: dict[str, Any], atol: float = 1e-13) -> None:
    """Both directions against a torch result that depends on x."""
    gy = torch.tensor(np.random.default_rng(1).normal(size=tuple(expected.shape)))
    expected.backward(gy)
    y = run(kind, [x.detach().numpy()], [garbage(tuple(expected.shape))], **attrs)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=atol)
    gx = run(f"{kind}Grad", [gy.numpy()], [garbage(tuple(x.shape))], **attrs)
    np.testing.assert_allclose(gx, x.grad.numpy(), atol=atol)


def leaf(*shape: int) -> Any:
    return torch.tensor(np.random.default_rng(0).normal(size=shape), requires_grad=True)


@few
@given(SIZES, st.data(), st.booleans())
def test_average_pooling_is_that_of_torch(
    sizes: list[int], data: st.DataObject, padding_counts: bool
) -> None:
    kernel = [data.draw(st.integers(1, 5)) for _ in sizes]
    strides = [data.draw(st.integers(1, 3)) for _ in sizes]
    pads = [data.draw(st.integers(0, taps // 2)) for taps in kernel]
    assume(all(size + 2 * pad >= taps for size, pad, taps in zip(sizes, pads, kernel, strict=True)))
    x = leaf(3, 2, *sizes)
    pool = F.avg_pool1d if len(sizes) == 1 else F.avg_pool2d
    expected = pool(x, kernel, strides, pads, count_include_pad=padding_counts)
    attrs = {
        "kernel": kernel,
        "strides": strides,
        "pads": [*pads, *pads],
        "count_include_pad": int(padding_counts),
    }
    check("AveragePool", x, expected, attrs)


def test_uneven_padding_is_a_mean_of_the_padded_map() -> None:
    x = leaf(2, 3, 5, 4)
    expected = F.avg_pool2d(F.pad(x, (2, 0, 1, 1)), (3, 2), (2, 1))
    attrs = {"kernel": [3, 2], "strides": [2, 1], "pads": [1, 2, 1, 0], "count_include_pad": 1}
    check("AveragePool", x, expected, attrs)


RESIZES = [
    ("nearest", "asymmetric", None),
    ("linear", "half_pixel", False),
    ("linear", "align_corners", True),
]


@pytest.mark.parametrize(("mode", "coordinates", "corners"), RESIZES)
@few
@given(SIZES, st.data())
def test_resizing_is_that_of_torch(
    mode: str, coordinates: str, corners: bool | None, sizes: list[int], data: st.DataObject
) -> None:
    out = [data.draw(st.integers(1, 12)) for _ in sizes]
    x = leaf(2, 3, *sizes)
    name = mode if mode == "nearest" or len(sizes) == 1 else "bilinear"
    expected = F.interpolate(x, size=out, mode=name, align_corners=corners)
    check("Resize", x, expected, {"mode": mode, "coordinates": coordinates})


def test_many_channels_pass_in_chunks() -> None:
    x = leaf(2, 70, 12, 9)
    expected = F.interpolate(x, size=(24, 18), mode="bilinear", align_corners=False)
    check("Resize", x, expected, {"mode": "linear", "coordinates": "half_pixel"})


def test_matrices_by_hand() -> None:
    third = 1 / 3
    pooled = filled(np.full((2, 4), np.nan), window_entries(4, 2, 3, 2, 1, True))
    np.testing.assert_allclose(pooled, [[third, third, 0, 0], [0, third, third, third]])
    pooled = filled(np.empty((2, 4)), window_entries(4, 2, 3, 2, 1, False))
    np.testing.assert_allclose(pooled, [[0.5, 0.5, 0, 0], [0, third, third, third]])
    doubled = filled(np.empty((4, 2)), linear_entries(2, 4, "half_pixel"))
    np.testing.assert_allclose(doubled, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    nearest = filled(np.empty((3, 2)), nearest_entries(2, 3, "asymmetric"))
    np.testing.assert_array_equal(nearest, [[1, 0], [1, 0], [0, 1]])


def test_every_output_of_a_resize_is_a_mean_of_inputs() -> None:
    for entries in (nearest_entries, linear_entries):
        for coordinates in ("asymmetric", "half_pixel", "align_corners"):
            for size, out in [(1, 5), (5, 1), (7, 3), (3, 7), (4, 4)]:
                matrix = filled(np.empty((out, size)), entries(size, out, coordinates))
                np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-15)
                assert (matrix >= 0).all()


def test_an_unknown_way_to_resize_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Resize: expected a mode of .* got 'cubic' and 'half_pixel'"):
        run("Resize", [np.zeros((1, 1, 2))], [garbage((1, 1, 4))], mode="cubic", coordinates="half_pixel")
