"""The step table of one step program as the executor reads it (`src/executor.h`): one allocation, of a known size."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..lower.memory import stored_shape
from ..lower.order import UPDATE
from ..lower.table import LOAD, SLICES, Slices, Step, StepProgram, Value
from ..program import DTYPE_BITS, Tensor
from .attributes import encoded
from .records import (
    ABSENT,
    ADDRESS,
    LOAD_CODE,
    MAX_RANK,
    SLICES_CODE,
    TILE,
    Attribute,
    Shape,
    SlicesRecord,
    StepRecord,
    TableRecord,
    ValueRecord,
)

CODES = {LOAD: LOAD_CODE, SLICES: SLICES_CODE}
PARTS: tuple[Any, ...] = (ValueRecord, StepRecord, SlicesRecord, Attribute, ctypes.c_int32)


def all_steps(program: StepProgram) -> Iterator[Step]:
    """Yield the steps of a program, then those inside its Slices steps."""
    yield from program.steps
    for step in program.steps:
        if step.slices is not None:
            yield from step.slices.steps


def inner_names(inner: Slices) -> list[str]:
    """Return the values that the inside of a Slices step names, each once."""
    return list(dict.fromkeys(name for step in inner.steps for name in (*step.inputs, *step.outputs) if name))


def value_names(program: StepProgram) -> list[str]:
    """Return the names of all values in the table, in order: those of the program, then slices and tiles."""
    inside = (inner_names(step.slices) for step in program.steps if step.slices is not None)
    return [*program.values, *(name for names in inside for name in names)]


def table_bytes(program: StepProgram) -> int:
    """Return the size of a program's step table, without making it."""
    return ctypes.sizeof(TableRecord) + sum(
        count * ctypes.sizeof(part) for count, part in zip(_counts(program), PARTS, strict=True)
    )


def _counts(program: StepProgram) -> tuple[int, int, int, int, int]:
    steps = list(all_steps(program))
    return (
        len(value_names(program)),
        len(steps),
        sum(step.slices is not None for step in steps),
        sum(len(_attributes(step)) for step in steps),
        sum(len(step.inputs) + len(step.outputs) for step in steps),
    )


def _attributes(step: Step) -> Sequence[int | float]:
    return [] if step.kind in CODES else encoded(step.kind, step.attrs)


def item_bytes(dtype: str) -> int:
    """Return the bytes of one stored element; packed types are stored as bytes."""
    return max(1, DTYPE_BITS[dtype] // 8)


@dataclass(frozen=True)
class Memory:
    """Where a value is, and how many bytes from there on are its own."""

    address: int
    room: int


class StepTable:
    """One step program as records; `place` says where everything is before each use.

    Attributes:
        program: the step program.
        record: the records' head, to be passed on by reference.
        values, steps, slices, attrs, operands: the records.
        raw: the allocation they all lie in.
    """

    def __init__(self, program: StepProgram, codes: Mapping[str, int], threads: int) -> None:
        self.program = program
        counts = _counts(program)
        self.raw = (ctypes.c_uint8 * table_bytes(program))()
        self.record = TableRecord.from_buffer(self.raw)
        at, found = ctypes.sizeof(TableRecord), list[Any]()
        for count, part in zip(counts, PARTS, strict=True):
            found.append((part * count).from_buffer(self.raw, at))
            at += count * ctypes.sizeof(part)
        self.values, self.steps, self.slices, self.attrs, self.operands = found
        head = self.record
        head.values, head.steps, head.slices, head.attrs, head.operands = map(ctypes.addressof, found)
        head.value_count, inner, head.slices_count, head.attr_count, head.operand_count = counts
        head.step_count, head.inner_count = len(program.steps), inner - len(program.steps)
        head.threads = threads
        _Writer(program, codes, self.values, self.steps, self.slices, self.attrs, self.operands).write()
        values = enumerate(program.values.values())
        self._batched = [i for i, value in values if value.shape[:1] == ("N",)]

    @property
    def address(self) -> int:
        """Where the allocation is."""
        return ctypes.addressof(self.raw)

    def place(self, samples: int, memory: Mapping[str, Memory], workspaces: Mapping[int, int]) -> None:
        """Say for how many samples the table is, and where everything lies.

        Args:
            samples: at hand, at most the planned batch.
            memory: of every value of the program that moved (at first: all).
            workspaces: addresses by step.
        """
        self.record.samples = samples
        for index in self._batched:
            self.values[index].tensor.shape[0] = samples
        for index, name in enumerate(self.program.values):
            if name in memory:
                self.values[index].tensor.data = memory[name].address
                self.values[index].room = memory[name].room
        for index, address in workspaces.items():
            self.steps[index].workspace = address


class _Writer:
    """Fills the records of a table, once."""

    def __init__(self, program: StepProgram, codes: Mapping[str, int], *parts: Any) -> None:
        self._program = program
        self._codes = {**codes, **CODES}
        self.values, self.steps, self.slices, self.attrs, self.operands = parts
        self._attr_count = self._operand_count = 0

    def write(self) -> None:
        """Write all records."""
        program = self._program
        numbers = {name: index for index, name in enumerate(program.values)}
        for number, value in zip(numbers.values(), program.values.values(), strict=True):
            self._write_value(number, stored(value), value.dtype, ADDRESS)
        step_count, slices_count, value_count = len(program.steps), 0, len(numbers)
        for index, step in enumerate(program.steps):
            self._write_step(index, step, numbers)
            if step.slices is None:
                continue
            self.steps[index].slices = slices_count
            self._write_slices(slices_count, step, step_count)
            inside = self._write_inner_values(step.slices, numbers, value_count)
            for offset, one in enumerate(step.slices.steps):
                self._write_step(step_count + offset, one, inside)
                self.steps[step_count + offset].inner = 1
            step_count += len(step.slices.steps)
            value_count += len(inside)
            slices_count += 1

    def _write_value(self, number: int, shape: Sequence[int], dtype: str, base: int) -> None:
        if len(shape) > MAX_RANK:
            raise ValueError(f"a tensor of rank {len(shape)}, the native kernels take at most {MAX_RANK}")
        record = self.values[number]
        record.tensor.rank = len(shape)
        record.tensor.shape = Shape(*shape)
        record.tensor.item_bytes, record.base = item_bytes(dtype), base

    def _write_step(self, index: int, step: Step, numbers: Mapping[str, int]) -> None:
        record, operands, attrs = self.steps[index], (*step.inputs, *step.outputs), _attributes(step)
        record.code = self._codes[step.kind]
        record.workspace_bytes = step.workspace_bytes
        record.inputs, record.outputs = len(step.inputs), len(step.outputs)
        record.operands, record.attrs = self._operand_count, self._attr_count
        record.update = step.kind == UPDATE
        for offset, name in enumerate(operands):
            self.operands[self._operand_count + offset] = numbers[name] if name else ABSENT
        for offset, value in enumerate(attrs):
            place = self.attrs[self._attr_count + offset]
            setattr(place, "f" if isinstance(value, float) else "i", value)
        self._operand_count += len(operands)
        self._attr_count += len(attrs)

    def _write_slices(self, index: int, step: Step, first: int) -> None:
        inner, record = step.slices, self.slices[index]
        assert inner is not None
        record.tile_bytes, record.scratch_bytes = inner.tile_bytes, inner.scratch_bytes
        record.sample_work = step.macs + step.sample_bytes
        record.blocks, record.first = inner.blocks, first
        record.before, record.each, record.after = map(len, (inner.before, inner.each, inner.after))

    def _write_inner_values(self, inner: Slices, outer: Mapping[str, int], first: int) -> dict[str, int]:
        numbers = {name: first + offset for offset, name in enumerate(inner_names(inner))}
        for name, number in numbers.items():
            tile = inner.tiles.get(name)
            if tile is None or tile.over:
                self._write_slice(number, name if tile is None else tile.over, inner, outer)
            if tile is not None:
                base = outer[tile.over] if tile.over else TILE
                self._write_value(number, tile.shape, tile.dtype, base)
                self.values[number].tensor.data = None if tile.over else tile.offset
        return numbers

    def _write_slice(self, number: int, name: str, inner: Slices, outer: Mapping[str, int]) -> None:
        value, blocks = self._program.values[name], inner.blocks if name in inner.sliced else 1
        batched = value.shape[:1] == ("N",)
        shape = list(stored(value))
        if blocks > 1:
            shape[int(batched)] //= blocks
        one_bytes = Tensor(name, value.shape, value.dtype).size_bytes(1)
        if one_bytes % blocks:
            raise ValueError(f"{name!r}: {one_bytes} bytes cannot be cut into {blocks} slices of whole bytes")
        self._write_value(number, shape, value.dtype, outer[name])
        record = self.values[number]
        record.sample = one_bytes if batched else 0
        record.block = one_bytes // blocks if blocks > 1 else 0


def stored(value: Value) -> tuple[int, ...]:
    """Return the shape in memory of one sample, or of a value without a batch axis."""
    return stored_shape(Tensor(value.name, value.shape, value.dtype), 1)


def dtype_of(value: Value) -> np.dtype[Any]:
    """Return the type of the array that holds a value."""
    return np.dtype(np.uint8 if DTYPE_BITS[value.dtype] < 8 else value.dtype)
