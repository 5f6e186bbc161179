"""Chains of operations that run block of channels by block of channels, or sample by sample.

What only the steps of a chain need is never a whole map: it lies in tiles of one sample and one block, or over the
slice of a result. So convolution, norm, activation and pooling run without a map at full size that nobody needs
later; a recomputed or unpacked map exists for one sample only; an update needs a block of its gradient at a time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from ..program import Tensor
from .body import Body, body_of, names_of
from .chains import DENSE, LOOK, Chain, find_chain, in_order, tiles
from .choice import CONVS, LEAN, MAPS, Choice
from .order import UPDATE
from .outline import Outline
from .reuse import Reuse, reuse
from .slice_rules import CUT, Rule, roles, rule_of, slice_attrs, slice_shape
from .table import SLICES, ZERO, Slices, Step, Tile
from .target import Target
from .tile_memory import TileMemory, aligned, placed, rooms

TILE_BYTES = 64 * 1024  # of all workers together, where the channels can be cut so far
ROWS = 32  # output channels: fewer make a convolution slower, so tiles may take a quarter of the maps instead
CACHE_BYTES = 512 * 1024  # of the slices that one worker passes over again and again


def tiled(steps: Sequence[Step], one: Outline, batch: int, choice: Choice, target: Target) -> list[Step]:
    """Replace chains in a body for `batch` samples at a time by `Slices` steps; see `Choice.tiling`."""
    if choice.tiling == MAPS:
        return list(steps)
    body = body_of(steps, one, batch, target.threads, choice.tiling in (CONVS, LEAN))
    left = Counter(body.mentions)
    waiting, done = deque(steps), list[Step]()
    while waiting:
        chain = find_chain(list(islice(waiting, LOOK)), body)
        if chain is None:
            chain = Chain([waiting.popleft()], [], [], 0)
        else:
            for _ in range(len(chain.before) + len(chain.steps) + len(chain.behind)):
                waiting.popleft()
            waiting.extendleft(reversed(chain.behind))
        for step in (*chain.before, *chain.steps):
            left.subtract(names_of(step))
        done += chain.before
        if chain.steps:
            done.append(_slices_step(chain, body, target, left))
    return done


def _slices_step(chain: Chain, body: Body, target: Target, left: Mapping[str, int]) -> Step:
    """Make the step; `left`: how often values are named behind it."""
    steps = in_order(chain.steps)
    inputs, _ = _outer(steps, set())
    found = reuse(steps, tiles(steps, body), _dying(inputs, chain, left, body), body)
    steps = found.steps
    inputs, outputs = _outer(steps, found.inner)
    blocks, memory = _blocks(chain.common, found, outputs, body)
    cut = _sliced(steps, blocks, body.tensors)
    ready = [_inner_step(step, blocks, cut, body.tensors, target) for step in steps]
    over = {name: room.over for room in memory.rooms for name in room.names}
    slices = Slices(
        blocks=blocks,
        sliced=frozenset(sorted(name for name in (*inputs, *outputs) if cut[name])),
        before=tuple(step for step in ready if step.kind == ZERO),
        each=tuple(step for step in ready if step.kind not in (ZERO, UPDATE)),
        after=tuple(step for step in ready if step.kind == UPDATE),
        tiles={name: _tile(body.tensors[name], blocks, over[name], memory) for name in over},
        tile_bytes=memory.bytes,
        scratch_bytes=aligned(max(step.workspace_bytes for step in ready)),
        in_place={outputs.index(name): inputs.index(other) for name, other in found.pairs.items()},
    )
    return Step(
        SLICES,
        tuple(inputs),
        tuple(outputs),
        layer=steps[-1].layer,
        workspace_bytes=_workers(blocks, body) * (slices.tile_bytes + slices.scratch_bytes),
        macs=sum(step.macs for step in steps),
        sample_bytes=sum(body.bytes(name) for name in outputs if body.tensors[name].batched),
        slices=slices,
    )


def _dying(inputs: Sequence[str], chain: Chain, left: Mapping[str, int], body: Body) -> list[str]:
    """Return the inputs in the arena that are not named again, each slice read by one block alone."""
    cut = _sliced(chain.steps, chain.common, body.tensors)
    return [
        name
        for name in inputs
        if body.tensors[name].batched
        and name not in body.kept
        and left[name] == 0
        and (cut[name] or chain.common == 1)
    ]


def _outer(steps: Sequence[Step], inner: set[str]) -> tuple[list[str], list[str]]:
    """Return the values that come from outside, and those that leave, in order of appearance."""
    written = dict.fromkeys(name for step in steps for name in step.outputs if name)
    read = dict.fromkeys(name for step in steps for name in step.inputs if name)
    return [name for name in read if name not in written], [name for name in written if name not in inner]


def _workers(blocks: int, body: Body) -> int:
    return min(body.threads, blocks)


def _blocks(common: int, found: Reuse, outputs: Sequence[str], body: Body) -> tuple[int, TileMemory]:
    """Return the smallest number of blocks with small tiles, enough for all threads, and the memory of the tiles.

    `common`: what the number must divide. One sample of a batch of one has nothing to gain from one block.
    """
    ends = {name for name in outputs if body.tensors[name].batched} - found.apart
    maps = {name for step in found.steps for name in names_of(step) if body.tensors[name].batched}
    whole, outer = (sum(body.bytes(name) for name in names) for names in (maps, maps - found.inner))
    rows = [_rows(step, body) for step in found.steps if step.kind in DENSE and step.attrs["groups"] == 1]
    possible = [n for n in range(1, common + 1) if common % n == 0]
    least = max(body.threads, 2 if body.batch == 1 else 1)
    for blocks in [n for n in possible if n >= least] or possible[-1:]:
        memory = placed(rooms(found.steps, found.inner, ends, partial(_slice_bytes, body, blocks)))
        long = all(count // blocks > ROWS for count in rows)
        enough = TILE_BYTES if long else max(TILE_BYTES, body.batch * outer // 4)
        small = _workers(blocks, body) * memory.bytes <= enough
        if small and (rows or whole // blocks <= CACHE_BYTES):
            break
    return blocks, memory


def _rows(step: Step, body: Body) -> int:
    """Return the output channels of a convolution."""
    tensor = body.tensors[step.outputs[0]]
    return int(tensor.shape[int(tensor.batched)])


def _slice_bytes(body: Body, blocks: int, name: str) -> int:
    return body.bytes(name) // blocks


def _sliced(steps: Sequence[Step], blocks: int, tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """Return whether each value is cut by channels; with one block none is."""
    cut: dict[str, bool] = {}
    for step in steps:
        cut |= {name: is_cut and blocks > 1 for name, is_cut in roles(step, _rule(step, tensors)).items()}
    return cut


def _rule(step: Step, tensors: Mapping[str, Tensor]) -> Rule:
    return rule_of(step, tensors) or CUT


def _inner_step(
    step: Step, blocks: int, cut: Mapping[str, bool], tensors: Mapping[str, Tensor], target: Target
) -> Step:
    attrs = slice_attrs(step, _rule(step, tensors), blocks)
    inputs, outputs = (
        [slice_shape(tensors[name], blocks if cut[name] else 1) if name else None for name in names]
        for names in (step.inputs, step.outputs)
    )
    threads = target.threads if blocks == 1 else 1
    needed = target.workspace_bytes(step.kind, inputs, outputs, attrs, threads)
    return replace(step, attrs=attrs, workspace_bytes=needed)


def _tile(tensor: Tensor, blocks: int, over: str, memory: TileMemory) -> Tile:
    return Tile(
        tensor.name, slice_shape(tensor, blocks), tensor.dtype, over, memory.offsets.get(tensor.name, 0)
    )
