"""Adapting by forward passes, in one arena: encode, generate films, stream features, compute the head."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..bundle import BundleFiles, Overlay
from ..bundle.streams import ENCODER, FEATURES, FILM, HEAD
from ..engines import Adaptation, Hooks, Progress, Support
from ..engines.arena import Arena
from ..engines.forward import forward
from ..engines.planned import PlannedEngine
from ..errors import EdgeAdaptError
from ..plan import Plan
from ..plan.offsets import ALIGNMENT
from .heads import Means, head_of
from .passes import Passes

Floats = NDArray[np.float32]


def adapt_stream(
    files: BundleFiles, engine: PlannedEngine, plan: Plan, support: Support, hooks: Hooks
) -> Adaptation:
    """Run all passes and return what they wrote.

    Raises:
        SupportError: a sample cannot be read.
        BundleError: a feature, or what is computed from all, is not finite because a weight is not.
        EdgeAdaptError: a feature, or what is computed from all, is not finite; names the sample or the tensor.
    """
    assert files.streams is not None
    engine.check_plan(plan)
    started, busy = time.perf_counter(), time.process_time()
    run = _Run(files, engine, plan, support, hooks, Passes(files.streams, engine.target))
    films = run.films() if files.streams.films else {}
    updated = {**films, **run.head(films)}
    _check_finite(files, updated)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - busy
    return Adaptation(updated, (), 1, seconds, run.arena.highest_changed(), cpu_seconds)


def _check_finite(files: BundleFiles, tensors: Mapping[str, Floats]) -> None:
    for name, value in tensors.items():
        if not (np.isfinite(value.min()) and np.isfinite(value.max())):
            files.weights.check_finite()
            raise EdgeAdaptError(
                f"{name!r} as computed from the support set is not finite: what the network makes of these samples"
                " is too large for float32; scale them as in training"
            )


@dataclass
class _Run:
    """One adaptation in progress.

    Attributes:
        arena: where everything is written that is not returned.
        mapped: the program whose weights are in memory.
    """

    files: BundleFiles
    engine: PlannedEngine
    plan: Plan
    support: Support
    hooks: Hooks
    passes: Passes
    arena: Arena = field(init=False)
    mapped: str = ""

    def __post_init__(self) -> None:
        self.arena = Arena(self.plan.dynamic_bytes, self.hooks.measure)

    def films(self) -> dict[str, Floats]:
        """Encode the support set and generate scale and shift of every film from the mean embedding."""
        total, streams = np.zeros(0), self.passes.streams
        for start, embeddings in self._stream(ENCODER):
            if start == 0:
                total = self.arena.view(0, embeddings.shape[1:], np.float64)
                total[...] = 0
            for embedding in embeddings:
                total += embedding
        row = self._one(FILM, (total / len(self.support)).astype(np.float32), {})
        names = [name for layer in streams.films for name in layer.params]
        ends = np.cumsum([width for width in streams.film_widths for _ in range(2)])
        return {name: part.copy() for name, part in zip(names, np.split(row, ends[:-1]), strict=True)}

    def head(self, films: Mapping[str, Floats]) -> dict[str, Floats]:
        """Stream the features through the films and compute the head; no mapped weights are left in memory."""
        streams = self.passes.streams
        means = Means(self.arena.view(0, (streams.classes, streams.width), np.float64))
        head, labels = head_of(streams, means), self.support.loss_inputs()["labels"]
        for start, features in self._stream(FEATURES, films):
            for label, vector in zip(labels[start:], features, strict=False):
                head.add(int(label), vector)
        start = -(-self.passes.kept_bytes // ALIGNMENT) * ALIGNMENT
        workspace = self.arena.view(start, (self.passes.finish_bytes,), np.uint8)
        try:
            head.finish(len(self.support.class_names), workspace, lambda mean: self._one(HEAD, mean, films))
        except ValueError as error:
            raise EdgeAdaptError(
                f"the head cannot be computed: {error}; the features are too large"
            ) from None
        self.files.weights.give_back()
        return dict(head.params)

    def _stream(self, name: str, films: Mapping[str, Floats] | None = None) -> Iterator[tuple[int, Floats]]:
        """Run the samples through a pass."""
        large = [one.name for one in self.passes.large]
        for start, outputs in self._forward(name, self.support, films or {}):
            for offset, row in enumerate(outputs):
                if not (np.isfinite(row.min()) and np.isfinite(row.max())):
                    self.files.weights.check_finite()
                    raise EdgeAdaptError(
                        f"sample {start + offset}: the network's {name} output is not finite, though its weights are:"
                        " the sample's values are too large; scale it as in training, or remove it"
                    )
            yield start, outputs
            if self.hooks.progress:
                done = start + len(outputs)
                self.hooks.progress(Progress(large.index(name), len(large), done, len(self.support)))

    def _one(self, name: str, row: Floats, films: Mapping[str, Floats]) -> Floats:
        """Run one row through a pass."""
        ((_, outputs),) = self._forward(name, _Row(row), films)
        found: Floats = outputs[0].copy()
        return found

    def _forward(
        self, name: str, samples: Support | _Row, films: Mapping[str, Floats]
    ) -> Iterator[tuple[int, Floats]]:
        """Run a pass; the mapped weights of the one before are given back first."""
        if name != self.mapped:
            self.files.weights.give_back()
            self.mapped = name
        number = [one.name for one in self.passes.every].index(name)
        program, offsets = self.plan.lowered.programs[number], self.plan.offsets[number]
        weights = Overlay(self.files.weights, films)
        return forward(self.engine.backend, program, offsets, self.arena, weights, samples)


@dataclass(frozen=True)
class _Row:
    """One row as the only sample."""

    values: Floats

    def __len__(self) -> int:
        return 1

    def fill(self, start: int, out: Floats) -> None:
        """See `Samples.fill`."""
        out[0] = self.values
