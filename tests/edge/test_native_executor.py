"""The executor: Slices steps written by hand, guard bytes round every buffer, and step tables it must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import native
from edge_adapt.edge.engines import NativeEngine
from edge_adapt.edge.engines.binding import Backend, Bound, NotFinite, ReferenceBackend
from edge_adapt.edge.engines.native_binding import NativeBackend
from edge_adapt.edge.lower import Choice, Step
from edge_adapt.edge.lower.table import StepProgram
from edge_adapt.edge.native.executor import Executor, StepTableError
from edge_adapt.edge.native.records import Span
from edge_adapt.edge.native.table import Memory, StepTable
from numpy.typing import NDArray

from .kernel_cases import relative_error, run
from .native_plans import needs_native, plan_of, weights_with_frozen
from .native_steps import (
    BATCH,
    CONV,
    NORM,
    POOL,
    GuardedArena,
    conv_chain,
    given,
    norm_chain,
    update_chain,
)
from .programs import Net, conv_program, random_support

pytestmark = needs_native
Array = NDArray[Any]
BACKENDS: Mapping[str, Callable[[], Backend]] = {
    "native": lambda: NativeBackend(native.best(), 1),
    "native, two threads": lambda: NativeBackend(native.best(), 2),
    "reference": ReferenceBackend,
}
backends = pytest.mark.parametrize("make", BACKENDS.values(), ids=BACKENDS)


def ran(make: Callable[[], Backend], program: StepProgram, count: int, arrays: dict[str, Array]) -> dict[str, Array]:  # fmt: skip # noqa: E501
    """Run the body; return the outputs of its steps, guards checked."""
    guarded = GuardedArena(program)
    found: dict[str, Array] = {}

    def after(step: Step, outputs: tuple[Array | None, ...]) -> None:
        guarded.check()
        found.update({n: a.copy() for n, a in zip(step.outputs, outputs, strict=True) if a is not None})

    make().bind(program, guarded.place(count, arrays)).run("body", 1, after)
    return found


@backends
@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("count", [1, BATCH])
def test_norm_relu_and_pool_in_blocks_equal_whole_maps(
    make: Callable[[], Backend], blocks: int, count: int
) -> None:
    program = norm_chain(blocks, 2)
    arrays = given(program, count)
    found = ran(make, program, count, arrays)
    maps, pooled = arrays["x"].shape, (count, 8, 4, 4)
    z, x_hat, r = (np.empty(maps, np.float32) for _ in range(3))
    inv_std, p = np.empty((count, 4), np.float32), np.empty(pooled, np.float32)
    mask, argmax = np.empty((count, 64), np.uint8), np.empty((count, 32), np.uint8)
    run("GroupNorm", [arrays["x"], arrays["scale"], arrays["bias"]], [z, x_hat, inv_std], **NORM)
    run("Relu", [z], [r, mask])
    run("MaxPool", [r], [p, argmax], **POOL)
    for name, truth in {"x_hat": x_hat, "inv_std": inv_std, "p": p}.items():
        assert relative_error(found[name], truth) < 2e-6
    np.testing.assert_array_equal(found["mask"], mask)
    np.testing.assert_array_equal(found["argmax"], argmax)


@backends
@pytest.mark.parametrize("blocks", [1, 2, 8])
def test_an_update_behind_its_gradient_in_blocks(make: Callable[[], Backend], blocks: int) -> None:
    program = update_chain(blocks, 2)
    arrays = given(program, BATCH)
    gw = np.zeros((8, 3, 3, 3), np.float32)
    run("ConvWeightGrad", [arrays["x"], arrays["gy"], arrays["weight"]], [gw], **CONV)
    truth = arrays["w"] - arrays["alpha"][1, 1] * gw  # row 1 of the step sizes, layer 1
    ran(make, program, BATCH, arrays)
    assert relative_error(arrays["w"], truth) < 2e-6


@backends
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_with_a_gradient_that_is_not_finite_is_not_made(
    make: Callable[[], Backend], bad: float
) -> None:
    program = update_chain(2, 2)
    arrays = given(program, BATCH)
    arrays["gy"][1, 5, 3, 3] = bad
    before = arrays["w"].copy()
    with np.errstate(all="ignore"), pytest.raises(NotFinite, match="gw"):
        ran(make, program, BATCH, arrays)
    np.testing.assert_array_equal(arrays["w"][4:], before[4:])  # its block


@backends
def test_samples_in_order_with_a_tile_over_the_result(make: Callable[[], Backend]) -> None:
    program = conv_chain(2)
    arrays = given(program, BATCH)
    y = np.empty((BATCH, 8, 7, 7), np.float32)
    run("Conv", [arrays["x"], arrays["w"], arrays["bias"]], [y], **CONV)
    found = ran(make, program, BATCH, arrays)
    assert relative_error(found["r"], np.maximum(y, 0)) < 2e-6


def test_bound_again_for_fewer_samples_the_table_is_only_moved() -> None:
    program = norm_chain(2, 1)
    guarded, backend = GuardedArena(program), NativeBackend(native.best(), 1)
    arrays = given(program, BATCH)
    first = backend.bind(program, guarded.place(BATCH, arrays))
    first.run("body", 0, None)
    whole = guarded.arena.view(guarded.offsets["p"], (BATCH, 8, 4, 4), np.float32).copy()
    part = {name: a[1:2] if len(a) == BATCH else a for name, a in arrays.items()}
    second = backend.bind(program, guarded.place(1, part))
    assert second.table is first.table
    second.run("body", 0, None)
    found = guarded.arena.view(guarded.offsets["p"], (1, 8, 4, 4), np.float32)
    np.testing.assert_array_equal(found, whole[1:2])


@pytest.mark.parametrize(
    "choice", [Choice(4), Choice(4, storage="sparse"), Choice(4, tiling="convs")], ids=repr
)
def test_no_step_of_a_real_program_writes_between_the_buffers(choice: Choice) -> None:
    net = Net(rho=0.3)
    program, support = conv_program(net), random_support(net, 4)
    weights = weights_with_frozen(program, "conv1")
    engine = NativeEngine()
    (one,) = plan_of(program, weights, choice, engine.target, 8, 1).lowered.programs
    guarded, steps = GuardedArena(one), []
    outside = {
        **{name: weights.copy(name) for name in weights.tensors},
        "labels": np.zeros(4, np.int64),
        "sample_weight": np.full(4, 0.25, np.float32),
        "class_mask": np.ones(5, np.float32),
    }
    outside |= {
        name: outside[name.removeprefix("updated::")] for name in one.values if name[:9] == "updated::"
    }
    bound: Bound = NativeBackend(native.best(), 1).bind(one, guarded.place(4, outside))

    def after(step: Step, outputs: tuple[Array | None, ...]) -> None:
        guarded.check()
        steps.append(step.kind)

    assert bound.images is not None
    bound.run("prologue", 0, after)
    support.fill(0, bound.images)
    bound.run("body", 0, after)
    bound.run("epilogue", 0, after)
    assert steps == [step.kind for step in one.steps]


class Checked:
    """A table of `norm_chain`, placed, that can be damaged before it is checked."""

    def __init__(self) -> None:
        self.program = norm_chain(2, 1)
        guarded = GuardedArena(self.program)
        arrays = given(self.program, BATCH)
        bound = NativeBackend(native.best(), 1).bind(self.program, guarded.place(BATCH, arrays))
        self.table: StepTable = bound.table
        self.arena, self.hold = guarded.arena, (guarded, arrays)
        names = [buffer.name for buffer in self.program.buffers]
        self.homes = [names.index(v.buffer) if v.buffer else -1 for v in self.program.values.values()]
        self.spans = [
            Span(guarded.offsets[b.name], b.bytes, b.first, b.last, names.index(b.name))
            for b in self.program.buffers
        ]

    def value(self, name: str) -> Any:
        return self.table.values[list(self.program.values).index(name)]

    def inner(self, name: str) -> Any:
        step = self.program.steps[0].slices
        assert step is not None
        names = dict.fromkeys(n for s in step.steps for n in (*s.inputs, *s.outputs) if n)
        return self.table.values[len(self.program.values) + list(names).index(name)]

    def check(self) -> None:
        executor = Executor(native.best())
        executor.check(self.table, self.arena.address, self.arena.size_bytes, self.homes, self.spans)


def set_(record: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(record, name, value)


def axis(record: Any, index: int, value: int) -> None:
    record.tensor.shape[index] = value


DAMAGE: Mapping[str, tuple[Callable[[Checked], Any], str]] = {
    "an unknown operation": (lambda c: set_(c.table.steps[1], code=10_000), "code 10000 is no operation"),
    "a negative operation": (lambda c: set_(c.table.steps[2], code=-2), "code -2 is no operation"),
    "no such value": (lambda c: c.table.operands.__setitem__(0, 999), "operand 999 of at most"),
    "operands beyond the list": (lambda c: set_(c.table.steps[1], operands=10_000), "operand"),
    "too many outputs": (lambda c: set_(c.table.steps[1], inputs=1, outputs=5), "operand 5 of at most 4"),
    "a rank of 7": (lambda c: set_(c.value("x").tensor, rank=7), "shape of 'x': 7, expected 6"),
    "an empty axis": (lambda c: axis(c.value("p"), 1, 0), "shape of 'p': 0, expected 1"),
    "a negative axis": (lambda c: axis(c.inner("z"), 1, -4), "shape of 'z': -4, expected 1"),
    "a shape beyond 64 bits": (
        lambda c: [axis(c.value("x"), i, 2**30) for i in range(4)], "shape of 'x'",
    ),
    "a larger outside value": (lambda c: axis(c.value("x"), 1, 9), r"'x' needs \d+ bytes, there are \d+"),
    "an address of zero": (lambda c: set_(c.value("x").tensor, data=None), "'x' lies at 0"),
    "an odd address": (lambda c: set_(c.value("p").tensor, data=c.value("p").tensor.data + 2), "'p' lies at"),
    "a value behind the arena": (
        lambda c: set_(c.value("p").tensor, data=c.arena.address + c.arena.size_bytes), "'p' lies at",
    ),
    "a value before the arena": (
        lambda c: set_(c.value("p").tensor, data=c.arena.address - 64), "'p' lies at -64",
    ),
    "a value in another's buffer": (
        lambda c: set_(c.value("p").tensor, data=c.value("x_hat").tensor.data), "its buffer is not there",
    ),
    "a buffer that ends before": (lambda c: set_(c.spans[0], first=-9, last=-1), "its buffer is not there"),
    "buffers over each other": (
        lambda c: set_(c.spans[1], offset=c.spans[0].offset), "buffers 1 and 0 share bytes",
    ),
    "a buffer behind the arena": (lambda c: set_(c.spans[0], offset=c.arena.size_bytes - 8), "lies at"),
    "a tile behind tile memory": (
        lambda c: set_(c.inner("r").tensor, data=c.table.slices[0].tile_bytes - 8), r"'r' needs \d+ bytes",
    ),
    "blocks beyond the value": (lambda c: set_(c.inner("x"), block=4 * 64 * 4 + 4), r"'x' needs \d+ bytes"),
    "samples beyond the value": (lambda c: set_(c.inner("p"), sample=8 * 16 * 4 + 4), r"'p' needs \d+ bytes"),
    "a slice of a tile": (lambda c: set_(c.inner("x"), base=99), "slices that do not fit|operand|slice"),
    "a tile outside slices": (lambda c: set_(c.value("x"), base=-2), "slices that do not fit"),
    "no blocks": (lambda c: set_(c.table.slices[0], blocks=0), "slices that do not fit"),
    "steps inside beyond the list": (lambda c: set_(c.table.slices[0], each=50), "slices that do not fit"),
    "a workspace too small": (
        lambda c: set_(c.table.steps[0], workspace_bytes=128), "the workspace does not fit",
    ),
    "a workspace elsewhere": (
        lambda c: set_(c.table.steps[0], workspace=c.arena.address + c.arena.size_bytes), "workspace",
    ),
    "scratch memory too large": (
        lambda c: set_(c.table.slices[0], scratch_bytes=2**20), "the workspace does not fit",
    ),
    "an output across an input": (
        lambda c: set_(c.inner("r").tensor, data=64), "'r' lies across another operand",
    ),
    "no samples": (lambda c: set_(c.table.record, samples=0), "expected 1"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_table_is_refused(damage: Callable[[Checked], Any], message: str) -> None:
    checked = Checked()
    checked.check()
    damage(checked)
    with pytest.raises(StepTableError, match=message):
        checked.check()


def test_a_workspace_smaller_than_the_operation_needs_is_refused() -> None:
    program = update_chain(2, 1)
    table = StepTable(program, native.best().codes, 1)
    table.slices[0].scratch_bytes = 64
    guarded, arrays = GuardedArena(program), given(program, BATCH)
    memory = {name: Memory(array.ctypes.data, array.nbytes) for name, array in arrays.items()}
    start = guarded.arena.address + guarded.offsets["workspace@0"]
    table.place(BATCH, memory, {0: start})
    spans = [Span(guarded.offsets["workspace@0"], program.steps[0].workspace_bytes, 0, 0, 0)]
    with pytest.raises(StepTableError, match=r"step 0 \(Slices\): the workspace does not fit: 64, expected"):
        Executor(native.best()).check(
            table, guarded.arena.address, guarded.arena.size_bytes, [-1] * len(program.values), spans
        )


@pytest.mark.parametrize("wrong", [np.zeros((3, 8, 8, 5), np.float32), np.zeros((3, 8, 8, 8)), np.zeros((8, 8, 8, 3), np.float32).T])  # fmt: skip # noqa: E501
def test_a_tensor_outside_the_arena_that_is_not_as_the_program_says_is_refused(wrong: Array) -> None:
    program = norm_chain(2, 1)
    arrays = {**given(program, BATCH), "x": wrong}
    with pytest.raises(ValueError, match=r"'x': expected contiguous float32 \[3, 8, 8, 8\], got float"):
        NativeBackend(native.best(), 1).bind(program, GuardedArena(program).place(BATCH, arrays))
