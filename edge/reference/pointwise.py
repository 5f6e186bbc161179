"""Kernels that treat every element alike: walked in chunks, so that intermediate values stay small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from .kernel import Array, Arrays, Attrs, Kernel, Shapes, Workspace, aligned, present

CHUNK = 2048  # elements of a scratch buffer


@dataclass(frozen=True)
class Pointwise:
    """An elementwise function as a kernel; output 0 may take the memory of input 0.

    Attributes:
        function: `function(sources, target, scratch, attrs)`, all 1-D and of one length; `target` may be the
            memory of the first source.
        buffers: how many scratch buffers it needs.
    """

    function: Callable[[list[Array], Array, list[Array], Attrs], None]
    buffers: int = 0

    def kernel(self) -> Kernel:
        """Return the kernel."""
        return Kernel(self._compute, self._workspace_bytes, in_place={0: 0})

    def _compute(self, inputs: Arrays, outputs: Arrays, attrs: Attrs, workspace: Array) -> None:
        sources = [array.reshape(-1) for array in present(inputs)]
        (result,) = present(outputs)
        target, size = result.reshape(-1), _chunk(result.shape)
        pieces = Workspace(workspace)
        scratch = [pieces.take(size, result.dtype) for _ in range(self.buffers)]
        for start in range(0, target.size, size):
            part = slice(start, start + size)
            goal = target[part]
            buffers = [buffer[: goal.size] for buffer in scratch]
            self.function([source[part] for source in sources], goal, buffers, attrs)

    def _workspace_bytes(self, inputs: Shapes, outputs: Shapes, attrs: Attrs, itemsize: int) -> int:
        (result,) = present(outputs)
        return self.buffers * aligned(itemsize * _chunk(result))


def _chunk(shape: tuple[int, ...]) -> int:
    return min(CHUNK, prod(shape[1:]))
