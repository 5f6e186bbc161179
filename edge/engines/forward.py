"""A forward pass over samples, a micro-batch at a time, in a given arena."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..lower.table import StepProgram
from .arena import Arena
from .base import Array, Samples, Weights
from .binding import Backend, Place


def forward(
    backend: Backend,
    program: StepProgram,
    offsets: Mapping[str, int],
    arena: Arena,
    weights: Weights,
    samples: Samples,
) -> Iterator[tuple[int, Array]]:
    """Yield the first sample and the outputs of every micro-batch, in order.

    Args:
        backend: the engine's.
        program: a lowered forward pass with one output.
        offsets: of its buffers.
        arena: at least as large as the layout says.
        weights: the parameters.
        samples: any number; what is yielded is overwritten by the next micro-batch.
    """
    (part,) = program.outputs
    bound = None
    for start in range(0, len(samples), program.batch):
        count = min(program.batch, len(samples) - start)
        if bound is None or count < program.batch:
            bound = backend.bind(program, Place(offsets, arena, 0, count, weights.mapped))
        if bound.images is not None:
            samples.fill(start, bound.images)
        bound.run("body", 0, None)
        yield start, bound.outputs[part]
