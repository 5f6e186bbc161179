"""Running native kernels in tests: every buffer between guard bytes, against the reference kernel in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge import native

from .kernel_cases import GARBAGE, Array, relative_error, run

GUARD_BYTES = 256
GUARD = 0xA5
RUNNABLE = [name for name in native.supported() if name in native.built()]
REASON = "no native kernels for this machine: install a C compiler, then edge-adapt again (make install)"


def variants() -> Any:
    """Parametrise a test over every compiled variant this machine can run; skip where there is none."""
    names = RUNNABLE or [pytest.param("none", marks=pytest.mark.skip(reason=REASON))]
    return pytest.mark.parametrize("variant", names)


def normal(seed: int, *shape: int) -> Array:
    """Standard normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def packed(shape: tuple[int, ...], bits: int) -> Array:
    """Random bytes in place of a packed mask or argmax of this logical shape."""
    count = -(-int(np.prod(shape[1:])) * bits // 8)
    return np.random.default_rng(0).integers(0, 256, (shape[0], count), dtype=np.uint8)


class Guarded:
    """A copy of an array with guard bytes before and after it."""

    def __init__(self, array: Array) -> None:
        self._memory = np.full(array.nbytes + 2 * GUARD_BYTES + 16, GUARD, np.uint8)
        self._start = GUARD_BYTES + -(self._memory.ctypes.data + GUARD_BYTES) % 16
        self._stop = self._start + array.nbytes
        self.array = self._memory[self._start : self._stop].view(array.dtype).reshape(array.shape)
        self.array[...] = array

    def check(self) -> None:
        """Raise AssertionError if a byte outside the array was changed."""
        assert (self._memory[: self._start] == GUARD).all(), "a byte before the array was written"
        assert (self._memory[self._stop :] == GUARD).all(), "a byte after the array was written"


def single(array: Array | None) -> Array | None:
    """Float64 arrays as float32, others as they are."""
    return array.astype(np.float32) if array is not None and array.dtype == np.float64 else array


def call(
    variant: str,
    kind: str,
    inputs: Sequence[Array | None],
    outputs: Sequence[Array | None],
    attrs: Mapping[str, Any],
    threads: int = 1,
) -> list[Array | None]:
    """Run one native kernel on copies, check every guard byte and that inputs were only read; return outputs."""
    library = native.load(variant)
    singles = [[single(a) for a in arrays] for arrays in (inputs, outputs)]
    shapes = [[None if a is None else a.shape for a in arrays] for arrays in singles]
    size = library.workspace_bytes(kind, shapes[0], shapes[1], attrs, threads)
    workspace = Guarded(np.full(size, GARBAGE, np.uint8))
    held = [[None if a is None else Guarded(a) for a in arrays] for arrays in singles]
    arrays = [[None if g is None else g.array for g in side] for side in held]
    library.run(kind, arrays[0], arrays[1], attrs, workspace.array, threads)
    for guarded in (workspace, *held[0], *held[1]):
        if guarded is not None:
            guarded.check()
    for before, after in zip(singles[0], arrays[0], strict=True):
        if before is not None:
            np.testing.assert_array_equal(before, after)
    return arrays[1]


def expected(
    kind: str, inputs: Sequence[Array | None], outputs: Sequence[Array | None], attrs: Mapping[str, Any]
) -> list[Array | None]:
    """What the reference kernel makes of the same call, in float64."""
    doubles = [
        [a.astype(np.float64) if a is not None and a.dtype == np.float32 else a for a in arrays]
        for arrays in (inputs, [None if a is None else a.copy() for a in outputs])
    ]
    run(kind, doubles[0], doubles[1], **attrs)
    return doubles[1]


def check(
    variant: str,
    kind: str,
    inputs: Sequence[Array | None],
    outputs: Sequence[Array | None],
    attrs: Mapping[str, Any],
    tolerance: float = 2e-6,
    threads: int = 1,
) -> None:
    """Native and reference agree on every output: floats within `tolerance` of the largest, integers exactly."""
    found = call(variant, kind, inputs, outputs, attrs, threads)
    for one, other in zip(found, expected(kind, [single(a) for a in inputs], outputs, attrs), strict=True):
        if one is None or other is None:
            assert one is other
        elif one.dtype == np.float32:
            assert relative_error(one, other) < tolerance
        else:
            np.testing.assert_array_equal(one, other)
