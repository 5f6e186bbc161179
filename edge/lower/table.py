"""The step table: what lowering hands to the planner and to an engine.

Time is the index of a step in `StepProgram.steps`: first the prologue (accumulators zeroed), then the
body (run once per micro-batch), then the epilogue (updates). Every lifetime is a closed interval of
these indices.

A step of kind `Slices` is a small program of its own that runs sample by sample and block of channels by
block of channels, so that what only its own steps need is never a whole map (see `Slices`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..program import Attr
from .choice import Choice

LOAD = "Load"
ZERO = "Zero"
SLICES = "Slices"
TERMS = ("saved", "masks", "accumulators", "workspace", "working")


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on named values.

    Attributes:
        kind: an operation of `edge/reference` (`Zero` among them), `Load` (the engine has filled the images of
            the micro-batch before the body runs) or `Slices`.
        inputs: value names; "" is an absent optional input.
        outputs: value names; "" is a dropped output.
        attrs: as in the program.
        layer: the layer it belongs to, "" for none.
        workspace_bytes: scratch memory inside the operation at the planned micro-batch.
        macs: multiply-accumulates for one sample.
        sample_bytes: bytes of the outputs for one sample (not counting outputs that have no batch axis).
        slices: the inside of a `Slices` step, None of any other.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Attr] = field(default_factory=dict)
    layer: str = ""
    workspace_bytes: int = 0
    macs: int = 0
    sample_bytes: int = 0
    slices: Slices | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """A value inside a `Slices` step: one sample, one block of channels.

    Attributes:
        shape: with a batch of 1 where the tensor is batched, the channel axis divided by the blocks where it is
            sliced; packed types are (1, bytes).
        over: a value of the step (an output) whose slice it shares memory with; "": it lies in tile memory.
        offset: first byte in tile memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    over: str
    offset: int


@dataclass(frozen=True, slots=True)
class Slices:
    """The inside of a `Slices` step.

    For every block b of `blocks`, in any order and by several workers: run `before`, then for every sample n of
    the batch `each`, then `after`. A value of the step (its inputs and outputs) is seen by the inner steps as its
    slice: sample n where it is batched, and block b of its channels where it is in `sliced`; the channel axis is
    the first one after the batch, so that a slice is contiguous: it starts at
    base + n*sample_bytes + b*(sample_bytes/blocks) (not batched: bytes/blocks). Every other value is a tile. Inner
    attributes (groups of a norm, groups of a depthwise convolution) are those of the slice already.

    Attributes:
        blocks: blocks of channels; 1: all channels at once, samples one after the other, inner operations may use
            all threads. More: workers take blocks, inner operations use one thread.
        sliced: values of the step that are cut by channels.
        before: steps without batched values that come first (Zero).
        each: steps for one sample.
        after: steps without batched values that come last (SgdUpdate; its gradient must be finite).
        tiles: inner values by name.
        tile_bytes: tile memory of one worker, a multiple of the alignment.
        scratch_bytes: workspace of the inner operation that needs most, behind the tiles.
        in_place: output -> input position of the step that may share memory.
    """

    blocks: int
    sliced: frozenset[str]
    before: tuple[Step, ...]
    each: tuple[Step, ...]
    after: tuple[Step, ...]
    tiles: Mapping[str, Tile]
    tile_bytes: int
    scratch_bytes: int
    in_place: Mapping[int, int]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All inner steps in order."""
        return (*self.before, *self.each, *self.after)


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the lowered program; `shape` may start with "N" as in the program.

    Attributes:
        buffer: the arena buffer that holds it from its first byte on; "" for values outside the arena
            (parameters, step sizes, labels, sample weights, class mask) and for caches; the cache's name where it
            is the same bytes under another shape (the offsets of a plan name such values like caches).
        cached: it holds all samples of the support set for the whole adaptation; a body that runs on samples
            from `start` on sees it from there.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    buffer: str
    cached: bool = False


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
        batch: most samples that one run of the body takes.
        updates_inside: the body updates parameters as soon as nothing needs their old values; there is no
            epilogue, and a step that fails must be undone from a copy kept elsewhere.
    """

    mask: tuple[bool, ...]
    steps: tuple[Step, ...]
    body: tuple[int, int]
    values: Mapping[str, Value]
    buffers: tuple[Buffer, ...]
    accumulators: tuple[str, ...]
    outputs: Mapping[str, str]
    batch: int
    updates_inside: bool = False


@dataclass(frozen=True, slots=True)
class Cache:
    """A value that the prefix computes once for all samples and the suffix reads in every gradient step."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Lowered:
    """An adaptation (or a prediction) ready to be planned.

    Attributes:
        programs: the distinct step programs.
        order: for every gradient step the index into `programs`.
        samples: support samples.
        choice: how it was lowered.
        prefix: of a cached suffix: run once over all samples in micro-batches; it fills the caches.
        caches: what the prefix fills; they lie at the start of the arena from the first prefix step on.
    """

    programs: tuple[StepProgram, ...]
    order: tuple[int, ...]
    samples: int
    choice: Choice
    prefix: StepProgram | None = None
    caches: tuple[Cache, ...] = ()

    @property
    def all_programs(self) -> tuple[StepProgram, ...]:
        """The prefix, where there is one, and the distinct step programs."""
        return self.programs if self.prefix is None else (self.prefix, *self.programs)
