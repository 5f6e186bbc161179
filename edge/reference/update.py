"""The gradient step."""

from __future__ import annotations

from math import prod

import numpy as np

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, integer, present

CHUNK = 2048  # elements of the scaled gradient held at once


def _sgd_update(inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
    """w' = w - alpha[step, layer_index]*gw; `step` is an attribute that lowering adds."""
    w, gradient, alpha = present(inputs)
    (updated,) = present(outputs)
    step_size = alpha[integer(attrs, "step"), integer(attrs, "layer_index")]
    before, slope, after = (array.reshape(-1) for array in (w, gradient, updated))
    buffer = Workspace(workspace).take(min(CHUNK, before.size), w.dtype)
    for start in range(0, before.size, CHUNK):
        part = slice(start, start + CHUNK)
        change = buffer[: after[part].size]
        np.multiply(slope[part], step_size, out=change)
        np.subtract(before[part], change, out=after[part])


def _update_workspace(inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
    (updated,) = present(outputs)
    return itemsize * min(CHUNK, prod(updated))


KERNELS = {"SgdUpdate": Kernel(_sgd_update, _update_workspace, in_place={0: 0})}
