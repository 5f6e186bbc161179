"""Small integers packed into bytes, lowest bits first, each sample starting on a byte."""

from __future__ import annotations

import numpy as np

from .kernel import Array


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes of `count` packed integers of `bits` bits."""
    return -(-count * bits // 8)


def pack(values: Array, bits: int, packed: Array) -> None:
    """Pack uint8 `values` (1-D, len(packed)*8/bits of them, overwritten) into `packed`."""
    per_byte = 8 // bits
    packed.fill(0)
    for place in range(per_byte):
        part = values[place::per_byte]
        np.left_shift(part, place * bits, out=part)
        np.bitwise_or(packed, part, out=packed)


def unpack(packed: Array, bits: int, values: Array) -> None:
    """Write the len(packed)*8/bits integers of `packed` into uint8 `values`, 1-D."""
    per_byte = 8 // bits
    for place in range(per_byte):
        np.right_shift(packed, place * bits, out=values[place::per_byte])
    np.bitwise_and(values, (1 << bits) - 1, out=values)
