"""Adapting by forward passes: samples stay where they are, there are no steps to be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from .bundle import BundleFiles, Checkpoint
from .engines import Adaptation, Engine, Hooks, Progress
from .engines.planned import PlannedEngine
from .errors import BudgetError, SupportError, UsageError
from .inputs import (
    AnySupport,
    ClassLabels,
    StreamedSupport,
    SupportSet,
    expected_decode_bytes,
    stream_samples,
)
from .lower import Target
from .plan import Plan
from .planning import Request, make_plan, smallest_peak
from .process import give_back_freed_memory
from .stream.adaptation import adapt_stream
from .units import format_bytes


class ByStream:
    """See `way.Way`."""

    overflow: ClassVar[str] = (
        "after adaptation: what the network makes of these samples is too large for float32; scale them as in training"
    )

    def outline(self, files: BundleFiles, request: Request, target: Target) -> Plan:
        """Plan for two samples that take nothing to read: what the budget has to be is known with the support set.

        A budget below that is raised to the smallest one that would do.
        """
        few, blank, budget = replace(request, samples=2), _blank(files), request.memory_budget
        if budget is not None:
            budget = max(budget, smallest_peak(files, few, target, blank))
        return make_plan(files, replace(few, memory_budget=budget), target, blank)

    def rehearse(self, files: BundleFiles, engine: Engine, plan: Plan) -> None:
        """Stream one blank sample of each of two classes; the baseline then holds no mapped weights."""
        blank, runner = _blank(files), stream_engine(files, engine)
        small = make_plan(files, Request(None, plan.dynamic_bytes, 2, 1), runner.target)
        with np.errstate(over="ignore", invalid="ignore"):
            adapt_stream(files, runner, small, blank, Hooks(measure=True))

    def read(
        self, files: BundleFiles, request: Request, plan: Plan, target: Target, path: Path
    ) -> tuple[Plan, StreamedSupport]:
        """Read headers and labels, and plan for what reading takes, and for as many samples as there are.

        Raises:
            BudgetError: the budget is too small; names the smallest for these samples.
            SupportError: the samples cannot be used, or one takes far more to decode than others and does not fit.
        """
        labels = ClassLabels(files.manifest.classes)
        spec, most = files.manifest.input, request.memory_budget
        if most is not None:
            most = max(most, plan.planned_peak_bytes + expected_decode_bytes(spec))
        support = stream_samples(path, spec, labels, most)
        give_back_freed_memory()
        asked = Request(request.memory_budget, request.dynamic_budget, len(support), 1)
        try:
            return make_plan(files, asked, target, support), support
        except BudgetError as refusal:
            _refuse_odd_image(files, asked, target, support, refusal)
            raise

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


def _blank(files: BundleFiles) -> SupportSet:
    """Return one blank sample of each of two classes."""
    spec = files.manifest.input
    samples = np.zeros((2, *spec.stored_shape), spec.stored_dtype)
    return SupportSet(samples, {"labels": np.arange(2)}, ("", ""), spec)


def _refuse_odd_image(
    files: BundleFiles, asked: Request, target: Target, support: StreamedSupport, refusal: BudgetError
) -> None:
    """Raise SupportError if the budget would do for the median image: then the dearest one is at fault."""
    if (found := support.dearest()) is None:
        return
    image, typical = found
    try:
        make_plan(files, asked, target, replace(support, decode_bytes=typical))
    except BudgetError:
        return
    raise SupportError(
        f"{image.path}: decoding it takes {format_bytes(image.decode_bytes)} (the median: {format_bytes(typical)}),"
        " for which the budget has no room; scale it down, save it as a baseline JPEG, or raise the budget to"
        f" {refusal.smallest_bytes} bytes"
    ) from None


def stream_engine(files: BundleFiles, engine: Engine) -> PlannedEngine:
    """Return the engine; raises UsageError if it cannot stream."""
    if not isinstance(engine, PlannedEngine):
        raise UsageError(
            f"engine {engine.name!r} cannot adapt a bundle of kind {files.manifest.kind}, only predict with the adapted"
            " model: use --engine native or reference"
        )
    return engine
