"""The pieces every kernel is made of: workspace, operands, attributes, windows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from edge_adapt.edge.reference import KERNELS
from edge_adapt.edge.reference.kernel import Workspace, aligned, integers, number, optional, present
from edge_adapt.edge.reference.strips import Axis, strip_elements, strips, window


def test_workspace_pieces_are_aligned_and_apart() -> None:
    workspace = Workspace(np.zeros(aligned(3 * 4) + aligned(5 * 8), np.uint8))
    first, second = workspace.take(3, np.float32), workspace.take(5, np.float64)
    first.fill(1)
    assert second.ctypes.data - first.ctypes.data == 16
    assert not second.any()


def test_a_workspace_that_is_too_short_says_by_how_much() -> None:
    with pytest.raises(ValueError, match="workspace of 20 bytes is too short by 4 bytes"):
        Workspace(np.zeros(20, np.uint8)).take(3, np.float64)


def test_a_missing_operand_is_named_by_its_position() -> None:
    with pytest.raises(ValueError, match="operand 1 of 2 is required but absent"):
        KERNELS["Add"].run([np.zeros(1), None], [np.zeros(1)], {}, np.zeros(0, np.uint8))
    assert present([1, 2]) == (1, 2)
    assert [optional([1, None], position) for position in range(3)] == [1, None, None]


def test_attributes_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="'pads' must list 4 integers"):
        integers({"pads": [1, 1]}, "pads", 4)
    with pytest.raises(ValueError, match="'eps' must be a number, got None"):
        number({}, "eps")


def test_numpys_buffer_size_is_restored() -> None:
    before = np.getbufsize()
    with pytest.raises(ValueError, match="required but absent"):
        KERNELS["Add"].run([None, None], [np.zeros(1)], {}, np.zeros(0, np.uint8))
    assert np.getbufsize() == before


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 2, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_overlap_lists_exactly_the_real_inputs(stride: int, pad: int, dilation: int) -> None:
    axis = Axis(size=5, kernel=3, stride=stride, pad=pad, dilation=dilation, out=4)
    for tap, start in product(range(3), range(4)):
        outputs, inputs = axis.overlap(tap, start, 4)
        pairs = [(o, o * stride + tap * dilation - pad) for o in range(start, 4)]
        real = [(o - start, i) for o, i in pairs if 0 <= i < 5]
        found = zip(range(4)[outputs], range(5)[inputs], strict=True)
        assert list(found) == real


@pytest.mark.parametrize(
    ("channels", "side"), [(1, 28), (32, 14), (32, 42), (32, 7), (64, 84), (512, 5), (3, 1)]
)
def test_strips_cover_every_position_once_in_a_small_buffer(channels: int, side: int) -> None:
    attrs = {"strides": [1, 1], "pads": [1, 1, 1, 1]}
    view = window((side, side), (3, 3), attrs)
    elements = strip_elements(channels, view, itemsize=4)
    assert 4 * elements <= max(16 * 1024, 24 * channels * 9 * 4)
    seen = np.zeros(side * side, int)
    for part, columns in strips(channels, view, np.empty(elements, np.float32)):
        positions = part.positions(side)
        assert columns.shape == (channels * 9, positions.stop - positions.start)
        seen[positions] += 1
    assert (seen == 1).all()
