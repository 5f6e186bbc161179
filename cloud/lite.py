"""LITE: forward the whole support set, back-propagate through a random part H of it (Bronskill et al., NeurIPS 2021).

For the values f_n of N samples that enter a task's parameters through sums,
    f_n <- detach(f_n) + 1[n in H] * (N/h) * (f_n - detach(f_n)):
values stay exact, gradients are unbiased (eq. 8). Only this path is scaled: a loss's other gradients are exact already.
With a control variate c that does not depend on H (ours), only what a sample's gradient adds to that of c is estimated:
    f_n <- detach(f_n) + c - detach(c) + 1[n in H] * (N/h) * (f_n - c - detach(f_n - c)).
Sums inside sums (an encoder, then features that depend on it; every inner step) need an H of their own each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .errors import ConfigError
from .tasks.task import Samples

Forward = Callable[[Tensor], Tensor]

PRECISIONS = ("float32", "bfloat16")
CHECKPOINTED = 4
"""Samples that are computed again together where activations are checkpointed."""


@dataclass(frozen=True)
class LiteConfig:
    """How much of a task is differentiated, and in which pieces it is computed; section [lite] of a recipe.

    Raises:
        ConfigError: naming the field, what was expected and what was given.
    """

    h: int | None = None
    """Support samples that gradients pass through, |H|; none: all (the exact gradient)."""
    stratified: bool = False
    """Draw H class by class; where h is below the number of classes, from the whole support set."""
    control_variate: bool | None = None
    """Estimate only what a sample's gradient adds to that of the queries' mean feature; false: as in the paper. None:
    wherever there is one, in amortized learners with h."""
    query_batch: int | None = None
    """Query samples of one backward pass; none: all. Amortized learners draw H for each, inner steps keep theirs."""
    chunk: int | None = None
    """Support samples of one forward pass without gradient; none: all."""
    checkpoint: bool = False
    """Passes with gradient keep inputs and outputs only and are computed again, a few samples at a time."""
    precision: str = "float32"
    """Of convolutions and matrix products in training: "float32", or "bfloat16" (autocast); evaluation is float32."""

    def __post_init__(self) -> None:
        for name in ("h", "query_batch", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"lite.{name}: expected at least 1, or none, got {value}")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"lite.precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )

    @property
    def controlled(self) -> bool:
        """Whether a control variate is used where there is one."""
        return self.control_variate is not False

    @contextmanager
    def autocast(self, device: torch.device) -> Iterator[None]:
        """Run what is inside in the precision asked for."""
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            yield


@dataclass(frozen=True)
class Subset:
    """H: the support samples that gradients pass through, and what makes their sums unbiased.

    Attributes:
        rows: int64 (h,), ascending.
        scale: float64 (h,): N/h, or N_c/h_c where H was drawn class by class.
    """

    rows: Tensor
    scale: Tensor


def generator_of(key: tuple[int, ...], *where: int) -> torch.Generator:
    """The random numbers of one draw: nothing but a task's key and the place (level, inner step, query batch)."""
    words = np.random.SeedSequence([len(key), *key, len(where), *where]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> np.uint64(1)))


def draw(count: int, h: int, generator: torch.Generator, labels: Tensor | None = None) -> Subset:
    """Draw H of `count` samples without replacement.

    Args:
        count: N.
        h: of them to draw.
        generator: on the CPU.
        labels: int64 (N,), to draw class by class, each class in proportion and at least once; where h is below
            the number of classes H is drawn from all.

    Raises:
        ValueError: h is above N.
    """
    check_size(count, h)
    if labels is None:
        return _uniform(torch.arange(count), h, generator)
    classes, sizes = torch.unique(labels, return_counts=True)
    if h < len(classes):
        return _uniform(torch.arange(count), h, generator)
    parts = [
        _uniform(torch.nonzero(labels == label).flatten(), own, generator)
        for label, own in zip(classes, shares(sizes.tolist(), h), strict=True)
    ]
    rows, order = torch.cat([part.rows for part in parts]).sort()
    return Subset(rows, torch.cat([part.scale for part in parts])[order])


def check_size(count: int, h: int) -> None:
    """Raise ValueError where H is to be larger than the support set."""
    if h > count:
        raise ValueError(
            f"lite.h: {h} asked for, but a task's support set has {count} samples; set at most that, or none"
        )


def shares(sizes: Sequence[int], h: int) -> list[int]:
    """How many of H each class gets: one, and the rest in proportion to what it has left (largest remainders)."""
    left, spare = sum(sizes) - len(sizes), h - len(sizes)
    exact = [spare * (size - 1) / left if left else 0.0 for size in sizes]
    found = [1 + int(share) for share in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda c: int(exact[c]) - exact[c])
    for c in by_remainder[: h - sum(found)]:
        found[c] += 1
    return found


def _uniform(rows: Tensor, h: int, generator: torch.Generator) -> Subset:
    chosen = rows[torch.randperm(len(rows), generator=generator)[:h]].sort().values
    return Subset(chosen, torch.full((h,), len(rows) / h, dtype=torch.float64))


def estimate(values: Tensor, chosen: Tensor, subset: Subset, control: Tensor | None = None) -> Tensor:
    """Put the gradient of H under the values of all samples: f_n + 1[n in H] * scale_n * (f_n - detach(f_n)).

    Args:
        values: (N, ...), without graph.
        chosen: (h, ...), the same function of the samples in H, with graph.
        subset: H.
        control: (...), a control variate with graph; it must not depend on H.

    Returns:
        (N, ...), equal to `values`.
    """
    if control is not None:
        values, chosen = values + (control - control.detach()), chosen - control
    scale = subset.scale.to(values).reshape(-1, *[1] * (values.ndim - 1))
    return values.index_add(0, subset.rows.to(values.device), scale * (chosen - chosen.detach()))


@torch.no_grad()
def exact_values(forward: Forward, samples: Samples, chunk: int | None = None) -> Tensor:
    """The values of all samples without graph, `chunk` samples decoded and computed at a time.

    Args:
        forward: (n, C, H, W) -> (n, ...), each sample on its own.
        samples: N of them.
        chunk: none: all at once.

    Returns:
        (N, ...).
    """
    return torch.cat(
        [
            forward(samples.take(rows))
            for rows in torch.split(torch.arange(len(samples)), chunk or len(samples))
        ]
    )


def values_with_graph(forward: Forward, x: Tensor, recompute: bool) -> Tensor:
    """The values of samples x (n, C, H, W) with their graph: (n, ...).

    Args:
        forward: (n, C, H, W) -> (n, ...), each sample on its own.
        x: the samples.
        recompute: keep no activations; the backward pass computes them again for `CHECKPOINTED` samples at a time.
    """
    if not recompute:
        return forward(x)
    again: Any = checkpoint
    parts = [
        again(forward, part, use_reentrant=False, preserve_rng_state=False)
        for part in torch.split(x, CHECKPOINTED)
    ]
    return torch.cat(parts)
