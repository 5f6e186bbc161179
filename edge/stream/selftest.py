"""The self-test of a bundle that adapts by forward passes: what it writes, and what it then says of the samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import BundleFiles, Overlay, TensorFile
from ..engines import Hooks
from ..engines.planned import PlannedEngine
from ..errors import BundleError
from ..inputs import SupportSet
from ..plan import Plan
from .adaptation import adapt_stream


def entry_indices(count: int, size: int) -> NDArray[np.int64]:
    """Return the flat indices of `count` entries of a tensor of `size`: one of each of as many equal parts.

    Every one lies one further in its part than the one before, so they are not all in one column of a matrix.
    """
    numbers = np.arange(count, dtype=np.int64)
    return numbers * size // count + numbers % max(1, size // count)


def written(
    files: BundleFiles, engine: PlannedEngine, plan: Plan, support: SupportSet, test: TensorFile
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any], float]]:
    """Adapt to the self-test's samples; yield name, expected and got (flat), and the scale errors are relative to.

    Raises:
        BundleError: the self-test names what adaptation does not write.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        updated = adapt_stream(files, engine, plan, support, Hooks()).updated
        logits = engine.predict(files.program, Overlay(files.weights, updated), support)
    assert files.streams is not None
    used = len(support.class_names)
    head = {name: updated[name][:used] for name in files.streams.head.params}
    found = {**updated, **head, "logits": logits[:, :used]}
    if odd := {name.removeprefix("entries::") for name in test.entries if "entries::" in name} - set(found):
        raise BundleError(f"{test.path}: {min(odd)!r} is not written by adaptation; export again")
    for name, value in found.items():
        flat, norm, expected = value.reshape(-1), recorded_norm(test, name), recorded_entries(test, name)
        yield f"norm of {name}", np.array([norm]), np.array([np.linalg.norm(flat.astype(np.float64))]), norm
        entries = flat[entry_indices(len(expected), len(flat))]
        yield f"entries of {name}", expected, entries, float(np.abs(expected).max())


def recorded_norm(test: TensorFile, name: str) -> float:
    """Return `norm::NAME`; raises BundleError if it is missing or no single number."""
    test.require(f"norm::{name}", (1,), "float32")
    return float(test.copy(f"norm::{name}")[0])


def recorded_entries(test: TensorFile, name: str) -> NDArray[np.float32]:
    """Return `entries::NAME`; raises BundleError if it is missing, empty or no list of numbers."""
    found = test.copy(f"entries::{name}")
    test.require(f"entries::{name}", (max(1, found.size),), "float32")
    return found
