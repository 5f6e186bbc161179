"""Maps kept in 8 or 16 bits: levels and a range for every sample and channel, unpacked where they are read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from math import prod

from ..program import BATCH, Op, Tensor
from .clones import Clones
from .outline import Outline

PLANE = 64  # elements of a channel from which on levels and range take much less


def with_packed_maps(one: Outline, bits: int) -> Outline:
    """Keep maps for the backward pass in 8 or 16 bits; the forward part reads them as they are."""
    names = [name for name in one.saved() if name not in one.cached and _large(one.tensors[name])]
    forward, backward = one.parts()
    clones = _unpacking(names, one, bits)
    return one.with_parts(_packing(forward, names), clones.before_readers(backward), clones.tensors)


def with_packed_caches(
    prefix: Outline, suffixes: Sequence[Outline], bits: int
) -> tuple[Outline, list[Outline]]:
    """Keep maps between prefix and suffixes in 8 or 16 bits."""
    names = [name for name in sorted(prefix.cached) if _large(prefix.tensors[name])]
    ops = _packing(prefix.ordered.ops, names)
    tensors = _unpacking(names, prefix, bits).tensors
    front = replace(prefix.with_parts(ops, [], tensors), cached=_packed_names(prefix.cached, names))
    return front, [_unpacked(one, names, bits) for one in suffixes]


def _unpacked(one: Outline, names: Collection[str], bits: int) -> Outline:
    """Let a suffix read packed caches."""
    clones = _unpacking(names, one, bits)
    forward, backward = (clones.before_readers(part) for part in one.parts())
    return replace(one.with_parts(forward, backward, clones.tensors), cached=_packed_names(one.cached, names))


def _large(tensor: Tensor) -> bool:
    plane = prod(int(axis) for axis in tensor.shape[2:])
    return tensor.batched and tensor.dtype == "float32" and len(tensor.shape) > 2 and plane >= PLANE


def _packed_names(cached: Iterable[str], names: Collection[str]) -> frozenset[str]:
    return frozenset(part for name in cached for part in (_parts(name) if name in names else (name,)))


def _parts(name: str) -> tuple[str, str]:
    return f"{name}@levels", f"{name}@range"


def _packing(ops: Iterable[Op], names: Collection[str]) -> list[Op]:
    """Put a Quantise behind what writes each of the values; those that nothing writes come first."""
    writer = {name: op for op in ops for name in op.outputs if name}
    packed = {name: Op("Quantise", (name,), _parts(name)) for name in names}
    result = [packed[name] for name in names if name not in writer]
    for op in ops:
        result.append(op)
        result += [packed[name] for name in op.outputs if name in packed]
    return result


def _unpacking(names: Collection[str], one: Outline, bits: int) -> Clones:
    """Return clones that unpack; their tensors are those of the outline and of the packed values."""
    added: dict[str, Tensor] = {}
    for name in names:
        tensor, (levels, ranges) = one.tensors[name], _parts(name)
        added[levels] = Tensor(levels, tensor.shape, f"uint{bits}", "saved")
        added[ranges] = Tensor(ranges, (BATCH, tensor.shape[1], 2), "float32", "saved")
    recipes = {name: Op("Dequantise", _parts(name), (name,)) for name in names}
    return Clones(recipes, {**one.tensors, **added})
