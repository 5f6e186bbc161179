"""Adapting by forward passes: samples stay where they are, there are no steps to be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from .bundle import BundleFiles, Checkpoint
from .engines import Adaptation, Engine, Hooks, Progress
from .engines.planned import PlannedEngine
from .errors import UsageError
from .inputs import AnySupport, ClassLabels, StreamedSupport, SupportSet, stream_samples
from .lower import Target
from .plan import Plan
from .planning import Request, make_plan, smallest_peak
from .process import give_back_freed_memory
from .stream.adaptation import adapt_stream


class ByStream:
    """See `way.Way`."""

    overflow: ClassVar[str] = (
        "after adaptation: what the network makes of these samples is too large for float32; scale them as in training"
    )

    def rehearse(self, files: BundleFiles, engine: Engine, plan: Plan) -> None:
        """Stream one blank sample of each of two classes; the baseline then holds no mapped weights."""
        spec = files.manifest.input
        samples = np.zeros((2, *spec.stored_shape), spec.stored_dtype)
        blank = SupportSet(samples, {"labels": np.arange(2)}, ("", ""), spec)
        runner = stream_engine(files, engine)
        small = make_plan(files, Request(None, plan.dynamic_bytes, 2, 1), runner.target)
        with np.errstate(over="ignore", invalid="ignore"):
            adapt_stream(files, runner, small, blank, Hooks(measure=True))

    def read(
        self, files: BundleFiles, request: Request, plan: Plan, target: Target, path: Path
    ) -> tuple[Plan, StreamedSupport]:
        """Read headers and labels, and plan again for what reading takes, and for as many samples as there are."""
        room = None
        if request.memory_budget is not None:
            room = request.memory_budget - smallest_peak(files, request, target)
        labels = ClassLabels(files.manifest.classes)
        support = stream_samples(path, files.manifest.input, labels, room)
        give_back_freed_memory()
        asked = Request(request.memory_budget, request.dynamic_budget, len(support), 1)
        return make_plan(files, asked, target, support), support

    def key(self, files: BundleFiles, plan: Plan, support: AnySupport, engine: Engine) -> Mapping[str, str]:
        """Nothing is continued."""
        return {}

    def adapt(
        self,
        files: BundleFiles,
        engine: Engine,
        plan: Plan,
        support: AnySupport,
        checkpoint: Checkpoint | None,
        progress: Callable[[Progress], None] | None,
        notify: Callable[[str], None],
    ) -> Adaptation:
        """Run all passes."""
        return adapt_stream(files, stream_engine(files, engine), plan, support, Hooks(progress, measure=True))


def stream_engine(files: BundleFiles, engine: Engine) -> PlannedEngine:
    """Return the engine; raises UsageError if it cannot stream."""
    if not isinstance(engine, PlannedEngine):
        raise UsageError(
            f"engine {engine.name!r} cannot adapt a bundle of kind {files.manifest.kind}, only predict with the adapted"
            " model: use --engine native or reference"
        )
    return engine
