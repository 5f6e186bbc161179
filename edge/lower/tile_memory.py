"""Where the values inside a `Slices` step lie: which share memory with which, and offsets in tile memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from ..reference import KERNELS
from .table import Step

ALIGNMENT = 64


@dataclass
class Room:
    """Memory of tiles that follow one another in the same place.

    Attributes:
        names: the tiles.
        bytes: the largest of them.
        first: the first inner step that names one.
        last: the last.
        over: the output whose slice it is; "": tile memory.
    """

    names: list[str]
    bytes: int
    first: int
    last: int
    over: str = ""


@dataclass(frozen=True)
class TileMemory:
    """Rooms of all tiles, offsets of those in tile memory, and its bytes."""

    rooms: Sequence[Room]
    offsets: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0


def inner_lives(steps: Sequence[Step]) -> dict[str, tuple[int, int]]:
    """Return the first and the last inner step that names a value."""
    lives: dict[str, tuple[int, int]] = {}
    for index, step in enumerate(steps):
        for name in chain(step.inputs, step.outputs):
            if name:
                lives[name] = (lives.get(name, (index, index))[0], index)
    return lives


def rooms(
    steps: Sequence[Step], tiles: Collection[str], outputs: Collection[str], size: Callable[[str], int]
) -> list[Room]:
    """Put tiles into one room where a kernel may work in place; it ends in the slice of one of `outputs` if it may."""
    lives = inner_lives(steps)
    room = {name: Room([name], size(name), *lives[name]) for name in lives if name in tiles}
    taken: set[str] = set()
    for index, step in enumerate(steps):
        for position, source in KERNELS[step.kind].in_place.items():
            name = step.outputs[position] if position < len(step.outputs) else ""
            before = room.get(step.inputs[source])
            if not name or before is None or lives[name][0] != index or before.last != index or name in taken:
                continue
            if name in outputs:
                if not before.over and before.bytes <= size(name):
                    before.over = name
                    taken.add(name)
                    before.last = index - 1  # what follows in this place is the output
            elif name in tiles and not (before.over and size(name) > size(before.over)):
                _join(before, room, name)
    unique = {id(one): one for one in room.values()}
    return list(unique.values())


def _join(before: Room, room: dict[str, Room], name: str) -> None:
    after = room[name]
    before.names.append(name)
    before.bytes = max(before.bytes, after.bytes)
    before.last = after.last
    room[name] = before


def placed(found: Sequence[Room]) -> TileMemory:
    """Give every room in tile memory the lowest offset that is free while it is needed, largest first."""
    done: list[tuple[Room, int]] = []
    offsets: dict[str, int] = {}
    for one in sorted((r for r in found if not r.over), key=lambda r: (-r.bytes, r.first)):
        offset = 0
        for other, start in sorted(done, key=lambda pair: pair[1]):
            together = one.first <= other.last and other.first <= one.last
            if together and offset < start + other.bytes and start < offset + one.bytes:
                offset = aligned(start + other.bytes)
        done.append((one, offset))
        offsets |= dict.fromkeys(one.names, offset)
    end = max((offset + one.bytes for one, offset in done), default=0)
    return TileMemory(found, offsets, aligned(end))


def aligned(size_bytes: int) -> int:
    """Round up to the alignment of tiles, scratch memory and workers."""
    return -(-size_bytes // ALIGNMENT) * ALIGNMENT
