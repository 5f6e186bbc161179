"""8-bit storage of maps."""

from __future__ import annotations

from collections.abc import Sequence

from .outline import Outline


def with_byte_maps(one: Outline) -> Outline:
    """Keep maps for the backward pass in 8 bits."""
    raise NotImplementedError


def with_byte_caches(prefix: Outline, suffixes: Sequence[Outline]) -> tuple[Outline, list[Outline]]:
    """Keep maps between prefix and suffixes in 8 bits."""
    raise NotImplementedError
