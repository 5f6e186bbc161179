"""One adaptation from support set to outcome: prepare, adapt step by step, measure, evaluate.

The peak meter starts after everything that belongs to no adaptation (imports, library buffers, one tiny
decode), so what it sees is what the plan promised: support set, weights, arena.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bundle import BundleFiles, Checkpoint, Overlay
from .engines import Adaptation, Engine, NonFiniteError, Progress
from .errors import EdgeAdaptError, UsageError
from .inputs import AnySupport
from .lower import Target
from .lower.choice import STREAM
from .measure import PeakMeter
from .plan import Plan
from .planning import Request, target_of
from .process import give_back_freed_memory, warm_up
from .score import score
from .stream.fits import misfit
from .stream.passes import Passes
from .way import way_of

OnProgress = Callable[[Progress], None]
Prepare = Callable[[], tuple[Plan, AnySupport]]


@dataclass(frozen=True)
class Outcome:
    """An adaptation and what was measured; `loss` and `accuracy`: of the support set, after the last step.

    `accuracy` is None where the loss knows no classes; `planned` says whether the engine keeps the plan's figures.
    """

    plan: Plan
    support: AnySupport
    adaptation: Adaptation
    meter: PeakMeter
    loss: float
    accuracy: float | None
    planned: bool = True


def check_budgets(request: Request, engine: Engine) -> None:
    """Raise UsageError if a budget is asked of an engine that does not plan."""
    if not engine.plans and (request.memory_budget, request.dynamic_budget) != (None, None):
        raise UsageError(
            f"engine {engine.name!r} does not plan its memory and cannot keep a budget; use --engine native"
            " or reference, or no budget"
        )


def check_plan(files: BundleFiles, plan: Plan, engine: Engine) -> None:
    """Raise UsageError if the plan was made for another engine, or a network other than this bundle's."""
    target = target_of(engine)
    if (plan.engine, plan.threads) != (target.name, target.threads):
        raise UsageError(
            f"the plan is for engine {plan.engine!r} with {plan.threads} thread(s): plan for engine"
            f" {target.name!r} with {target.threads}"
        )
    odd = _misfit(files, plan) if files.streams is None else misfit(Passes(files.streams, target), plan)
    if odd:
        raise UsageError(f"the plan does not fit {files.path} (it differs in {odd}): plan with this bundle")


def _misfit(files: BundleFiles, plan: Plan) -> str:
    """Return the first thing in which a plan differs from one of a program with a backward pass, or ""."""
    if plan.choice.schedule == STREAM:
        return "its schedule"
    tensors, known = files.program.tensors, {layer.name for layer in files.program.layers}
    values = [value for one in plan.lowered.programs for value in one.values.values()]
    odd = [
        value.name for value in values if value.name in tensors and tensors[value.name].shape != value.shape
    ]
    odd += [name for step in plan.layers for name in step if name not in known]
    return odd[0] if odd else ""


def outline(files: BundleFiles, request: Request, target: Target) -> Plan:
    """Return the plan that `rehearse` and `stream_support` start from; raises BudgetError if none can be kept."""
    return way_of(files).outline(files, request, target)


def stream_support(
    files: BundleFiles, request: Request, plan: Plan, target: Target, path: Path
) -> tuple[Plan, AnySupport]:
    """Read a support set (of a stream: its headers and labels) within the budget's room for decoding.

    Returns:
        The plan, priced for what the samples take, and the support set.

    Raises:
        SupportError: the samples cannot be used, or one decode does not fit the budget.
        BudgetError: nothing fits; names the smallest budget that would.
    """
    return way_of(files).read(files, request, plan, target, path)


def rehearse(files: BundleFiles, engine: Engine, plan: Plan) -> None:
    """Do what an adaptation does on one blank sample, so that library code is loaded before the baseline is taken.

    This takes less than the plan itself.
    """
    way_of(files).rehearse(files, engine, plan)


def adapt(
    files: BundleFiles,
    engine: Engine,
    prepare: Prepare,
    checkpoint: Checkpoint | None = None,
    progress: OnProgress | None = None,
    notify: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Prepare, adapt and evaluate under the peak meter.

    Args:
        files: the bundle.
        engine: what runs the plan.
        prepare: returns plan and support set; called inside the measured span.
        checkpoint: where the last finished step is kept; a run found there is continued.
        progress: called after every micro-batch.
        notify: called with one line where something happened that a person should know.

    Raises:
        BundleError: a weight of the bundle is NaN or infinite, found where the adaptation meets it.
        NonFiniteError: naming step and layer; the checkpoint keeps the last finished step.
        AdaptationInterrupted: Ctrl-C; likewise.
    """
    warm_up()
    give_back_freed_memory()
    with PeakMeter() as meter, np.errstate(over="ignore", invalid="ignore"):  # checked after every step
        plan, support = prepare()
        if checkpoint is not None:
            checkpoint = checkpoint.of(way_of(files).key(files, plan, support, engine))
        try:
            adaptation = way_of(files).adapt(files, engine, plan, support, checkpoint, progress, notify)
        except NonFiniteError:
            files.weights.check_finite()
            raise
        weights = Overlay(files.weights, adaptation.updated)
        loss, accuracy = score(files, engine, weights, support)
    if not math.isfinite(loss):
        raise EdgeAdaptError(f"the support loss is {loss} {way_of(files).overflow}")
    return Outcome(plan, support, adaptation, meter, loss, accuracy, engine.plans)
