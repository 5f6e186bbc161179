"""The windows of a pooling node: kernel, strides and padding, in the one spelling that programs have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import NodeProto

from ...edge.program import Attr
from ..errors import ExportError
from ..reading.graph import ForwardGraph, attributes


@dataclass(frozen=True)
class Windows:
    """Kernel and strides per spatial axis; padding before every axis, then after every axis."""

    kernel: list[int]
    strides: list[int]
    pads: list[int]

    @property
    def attrs(self) -> Mapping[str, Attr]:
        """As attributes of a program's operation."""
        return {"kernel": self.kernel, "strides": self.strides, "pads": self.pads}


def windows(graph: ForwardGraph, node: NodeProto) -> Windows:
    """Read a MaxPool or AveragePool over one or two spatial axes.

    `auto_pad` and `ceil_mode` become the padding they mean: rounding the number of windows up is padding the end
    until the last one fits.

    Raises:
        ExportError: dilation, or another number of axes.
    """
    attrs = attributes(node)
    kernel = list(attrs["kernel_shape"])
    rank = len(kernel)
    strides = list(attrs.get("strides", [1] * rank))
    if rank not in (1, 2) or any(step != 1 for step in attrs.get("dilations", [])):
        raise ExportError(
            f"{graph.described(node)}: expected windows over one or two axes, without dilation; "
            f"got kernel {kernel}, dilations {list(attrs.get('dilations', [1] * rank))}"
        )
    before, after = (graph.shape(name)[2:] for name in (node.input[0], node.output[0]))
    auto, pads = attrs.get("auto_pad", "NOTSET"), list(attrs.get("pads", [0] * 2 * rank))
    for axis in range(rank):
        size, out = int(before[axis]), int(after[axis])
        needed = (out - 1) * strides[axis] + kernel[axis] - size
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            small = max(needed, 0) // 2
            pads[axis] = small if auto == "SAME_UPPER" else max(needed, 0) - small
        pads[axis + rank] = max(pads[axis + rank] if auto == "NOTSET" else 0, needed - pads[axis])
    return Windows(kernel, strides, pads)
