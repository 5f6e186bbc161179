"""Average pooling of x (N, C, L) or (N, C, H, W), and its gradient."""

from __future__ import annotations

from .kernel import Attrs, integer, integers
from .separable import Entries, separable, window_entries


def axis_entries(axis: int, size: int, out: int, attrs: Attrs) -> Entries:
    """Entries of the averaging matrix (out, size) of one spatial axis.

    Counting only real elements is separable too: a window's count is its rows times its columns.
    """
    kernel = attrs.get("kernel")
    rank = len(kernel) if isinstance(kernel, list) else 0
    taps = integers(attrs, "kernel", rank)[axis]
    stride, pad = integers(attrs, "strides", rank)[axis], integers(attrs, "pads", 2 * rank)[axis]
    return window_entries(size, out, taps, stride, pad, bool(integer(attrs, "count_include_pad")))


_FORWARD, _GRADIENT = separable(axis_entries)
KERNELS = {"AveragePool": _FORWARD, "AveragePoolGrad": _GRADIENT}
