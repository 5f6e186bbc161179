"""Resizing of x (N, C, L) or (N, C, H, W) to the size of the output, and its gradient."""

from __future__ import annotations

from .kernel import Attrs
from .separable import COORDINATES, Entries, linear_entries, nearest_entries, separable

MODES = {"nearest": nearest_entries, "linear": linear_entries}


def axis_entries(axis: int, size: int, out: int, attrs: Attrs) -> Entries:
    """Entries of the interpolation matrix (out, size) of one spatial axis.

    Raises:
        ValueError: an unknown mode or system of coordinates.
    """
    mode, coordinates = attrs.get("mode"), attrs.get("coordinates")
    if mode not in MODES or coordinates not in COORDINATES:
        raise ValueError(
            f"Resize: expected a mode of {list(MODES)} and coordinates of {list(COORDINATES)}, "
            f"got {mode!r} and {coordinates!r}"
        )
    return MODES[str(mode)](size, out, str(coordinates))


_FORWARD, _GRADIENT = separable(axis_entries)
KERNELS = {"Resize": _FORWARD, "ResizeGrad": _GRADIENT}
