"""Sizes as people write them: `8MB` (1e6), `8MiB` (2**20), `800kB`, and bare integers as bytes."""

from __future__ import annotations

import re

from .errors import UsageError

_FACTORS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str | int) -> int:
    """Turn a size into bytes; raises UsageError naming the forms that are understood."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _SIZE.fullmatch(str(text))
    if match is None or match[2].lower() not in _FACTORS:
        raise UsageError(f"size {str(text)!r} is not understood: write 8MB, 8MiB, 800kB or a number of bytes")
    return int(float(match[1]) * _FACTORS[match[2].lower()])


def format_bytes(count: int) -> str:
    """Write a byte count with a decimal unit, three significant digits: 1234567 -> '1.23 MB'."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if abs(value) < 999.5:
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
