"""The step table: what lowering hands to the planner and to an engine.

Time is the index of a step in `StepProgram.steps`: first the prologue (accumulators zeroed), then the
body (run once per micro-batch), then the epilogue (updates). Every lifetime is a closed interval of
these indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..program import Attr

LOAD = "Load"
ZERO = "Zero"
TERMS = ("saved", "masks", "accumulators", "workspace", "working")


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on named values.

    Attributes:
        kind: an operation of `edge/reference`, or `Load` (the engine fills the images of the micro-batch) or
            `Zero` (the engine zeroes an accumulator).
        inputs: value names; "" is an absent optional input.
        outputs: value names; "" is a dropped output.
        attrs: as in the program.
        layer: the layer it belongs to, "" for none.
        workspace_bytes: scratch memory inside the operation at the planned micro-batch.
        macs: multiply-accumulates for one sample.
        sample_bytes: bytes of the outputs for one sample (not counting outputs that have no batch axis).
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    layer: str = ""
    workspace_bytes: int = 0
    macs: int = 0
    sample_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the lowered program; `shape` may start with "N" as in the program.

    Attributes:
        buffer: the arena buffer that holds it from its first byte on; "" for values outside the arena
            (parameters, step sizes, labels, sample weights, class mask).
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    buffer: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A time span in which a buffer has one size and counts towards one term (see TERMS)."""

    first: int
    last: int
    bytes: int
    term: str


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory at one offset, shared by a value and those written in its place or aliasing it.

    It may shrink or grow over time (a max-pool in place needs a quarter afterwards): `segments` are
    consecutive spans without gaps.
    """

    name: str
    segments: tuple[Segment, ...]

    @property
    def first(self) -> int:
        """Index of the step that first needs the buffer."""
        return self.segments[0].first

    @property
    def last(self) -> int:
        """Index of the last step that needs the buffer."""
        return self.segments[-1].last

    @property
    def bytes(self) -> int:
        """The largest size over time."""
        return max(segment.bytes for segment in self.segments)


@dataclass(frozen=True, slots=True)
class StepProgram:
    """One gradient step (or one forward pass) as a flat list.

    Attributes:
        mask: which layers are updated, by position in `program.layers`.
        steps: all steps; time is the index in this tuple.
        body: [start, end) of the steps repeated for every micro-batch; before it the prologue, after it the
            epilogue.
        values: every value named by a step.
        buffers: every arena buffer, workspaces included.
        accumulators: gradients that are checked for finite values before the epilogue.
        outputs: `loss` and `logits` to value names, as far as they are computed.
    """

    mask: tuple[bool, ...]
    steps: tuple[Step, ...]
    body: tuple[int, int]
    values: Mapping[str, Value]
    buffers: tuple[Buffer, ...]
    accumulators: tuple[str, ...]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lowered:
    """An adaptation (or a prediction) ready to be planned.

    Attributes:
        programs: the distinct step programs.
        order: for every gradient step the index into `programs`.
        samples: support samples.
        micro_batch: samples per run of a body.
        storage: "dense" or "sparse".
    """

    programs: tuple[StepProgram, ...]
    order: tuple[int, ...]
    samples: int
    micro_batch: int
    storage: str
