"""Binding for the native engine: step programs to step tables in C, checked, then run a phase at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ..lower.memory import workspace_name
from ..lower.table import LOAD, Step, StepProgram
from ..native import Library
from ..native.executor import INTERRUPTED, NOT_FINITE, Executor
from ..native.records import Span
from ..native.table import Memory, StepTable, dtype_of
from ..program import Tensor
from .arena import Arena
from .base import Array
from .binding import NotFinite, Phase, Place, array_of, phase_steps
from .interrupts import uninterrupted

LOOK_NANOSECONDS = 10_000_000
"""How often a run without a watcher looks whether it shall stop."""

After = Callable[[Step, tuple[Array | None, ...]], None]


@dataclass
class NativeBound:
    """A step table over memory; see `Bound`."""

    program: StepProgram
    place: Place
    table: StepTable
    executor: Executor
    outside: Mapping[str, Array]
    images: Array | None = field(init=False)
    accumulators: Mapping[str, Array] = field(init=False)
    outputs: Mapping[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        program = self.program
        loads = [self._array(step.outputs[0]) for step in program.steps if step.kind == LOAD]
        self.images = loads[0] if loads else None
        self.accumulators = {name: self._array(name) for name in program.accumulators}
        named = program.outputs.items()
        self.outputs = {part: self._array(name) for part, name in named if name in program.values}

    def run(self, phase: Phase, row: int, after: After | None) -> None:
        """See `Bound.run`; Ctrl-C stops it between two steps, but not between two updates of an epilogue."""
        first, last, _ = phase_steps(self.program, phase).indices(len(self.program.steps))
        while first < last:
            first = self._run_until_stopped(first, last, row, after, phase != "epilogue")

    def _run_until_stopped(
        self, first: int, last: int, row: int, after: After | None, stoppable: bool
    ) -> int:
        """Run steps and return the one to go on with; exceptions of `after` and of Ctrl-C come out of here."""
        trouble: list[BaseException] = []
        with uninterrupted() as held_back:

            def tell(index: int) -> int:
                try:
                    if after is not None:
                        after(self.program.steps[index], self._outputs(index))
                except BaseException as error:
                    trouble.append(error)
                return int(bool(trouble) or (stoppable and bool(held_back)))

            interval = LOOK_NANOSECONDS if after is None else 0
            told = tell if after is not None or stoppable else None
            status, step, name = self.executor.execute(self.table, first, last, row, told, interval)
        if trouble:
            raise trouble[0]
        if status == NOT_FINITE:
            raise NotFinite(name)
        return step + 1 if status == INTERRUPTED else last

    def _outputs(self, index: int) -> tuple[Array | None, ...]:
        return tuple(self._array(name) if name else None for name in self.program.steps[index].outputs)

    def _array(self, name: str) -> Array:
        return self.outside[name] if name in self.outside else array_of(self.program.values[name], self.place)


class NativeBackend:
    """Keeps a step table for every step program of an arena; binding again only moves it."""

    def __init__(self, library: Library, threads: int) -> None:
        self._codes, self._threads = library.codes, threads
        self._executor = Executor(library)
        self._tables: WeakKeyDictionary[Arena, dict[int, StepTable]] = WeakKeyDictionary()

    def bind(self, program: StepProgram, place: Place) -> NativeBound:
        """See `Backend.bind`.

        Raises:
            StepTableError: a step would touch memory that is not its own.
        """
        tables = self._tables.setdefault(place.arena, {})
        table = tables.get(id(program))
        if table is None:
            table = tables[id(program)] = StepTable(program, self._codes, self._threads)
        outside = _outside(program, place)
        memory = {**_inside(program, place), **{name: _memory(array) for name, array in outside.items()}}
        start = place.arena.address
        workspaces = {
            index: start + place.offsets[workspace_name(index)]
            for index, step in enumerate(program.steps)
            if step.workspace_bytes
        }
        table.place(place.count, memory, workspaces)
        homes, spans = _spans(program, memory, place)
        self._executor.check(table, start, place.arena.size_bytes, homes, spans)
        return NativeBound(program, place, table, self._executor, outside)


def _outside(program: StepProgram, place: Place) -> dict[str, Array]:
    """Return the arrays outside the arena; raises ValueError where one is not as the program says."""
    arrays = {}
    for name, value in program.values.items():
        if value.buffer or value.cached:
            continue
        array = place.outside(name)
        shape = tuple(place.count if axis == "N" else axis for axis in value.shape)
        if array.dtype != dtype_of(value) or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(
                f"{name!r}: expected contiguous {value.dtype} {list(shape)}, got {array.dtype}"
                f" {list(array.shape)}"
            )
        arrays[name] = array
    return arrays


def _inside(program: StepProgram, place: Place) -> dict[str, Memory]:
    """Return where the values in the arena lie."""
    start, found = place.arena.address, {}
    for name, value in program.values.items():
        if not value.buffer and not value.cached:
            continue
        tensor = Tensor(name, value.shape, value.dtype)
        offset = place.offsets[value.name if value.cached else value.buffer]
        if value.cached:
            offset += place.first * tensor.size_bytes(1)
        found[name] = Memory(start + offset, tensor.size_bytes(place.count))
    return found


def _memory(array: Array) -> Memory:
    return Memory(array.ctypes.data, array.nbytes)


def _spans(program: StepProgram, memory: Mapping[str, Memory], place: Place) -> tuple[list[int], list[Span]]:
    """Return the buffer number of every value, and when the buffers and the caches take which bytes.

    Cached values at the same place (one is a reshaped view of the other) are in one buffer.
    """
    numbers = {buffer.name: number for number, buffer in enumerate(program.buffers)}
    spans = [
        Span(place.offsets[buffer.name], segment.bytes, segment.first, segment.last, numbers[buffer.name])
        for buffer in program.buffers
        for segment in buffer.segments
    ]
    caches: dict[int, int] = {}
    homes = []
    for name, value in program.values.items():
        if value.cached:
            own, offset = memory[name], memory[name].address - place.arena.address
            number = caches.setdefault(offset, len(numbers) + len(caches))
            spans.append(Span(offset, own.room, 0, len(program.steps), number))
            homes.append(number)
        else:
            homes.append(numbers.get(value.buffer, -1))
    return homes, spans
