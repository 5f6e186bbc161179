"""One adaptation from support set to outcome: prepare, adapt step by step, measure, evaluate.

The peak meter starts after everything that belongs to no adaptation (imports, library buffers, one tiny
decode), so what it sees is what the plan promised: support set, weights, arena.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import BundleFiles, Checkpoint, Overlay
from .engines import Adaptation, Engine, Hooks, NonFiniteError, Progress
from .errors import BundleError, EdgeAdaptError, UsageError
from .inputs import SupportSet, read_support
from .lower import Target
from .measure import PeakMeter
from .plan import Plan, search_plan, with_decode
from .plan.space import Fixed
from .planning import Request, make_plan, target_of
from .process import give_back_freed_memory, warm_up
from .score import score

OnProgress = Callable[[Progress], None]
Prepare = Callable[[], tuple[Plan, SupportSet]]


@dataclass(frozen=True)
class Outcome:
    """An adaptation and what was measured; `loss` and `accuracy`: of the support set, after the last step.

    `accuracy` is None where the loss knows no classes; `planned` says whether the engine keeps the plan's figures.
    """

    plan: Plan
    support: SupportSet
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
    tensors, known = files.program.tensors, {layer.name for layer in files.program.layers}
    values = [value for one in plan.lowered.programs for value in one.values.values()]
    odd = [
        value.name for value in values if value.name in tensors and tensors[value.name].shape != value.shape
    ]
    odd += [name for step in plan.layers for name in step if name not in known]
    if odd:
        raise UsageError(
            f"the plan does not fit {files.path} (it differs in {odd[0]}): plan with this bundle"
        )


def stream_support(
    files: BundleFiles, request: Request, plan: Plan, target: Target, path: Path
) -> tuple[Plan, SupportSet]:
    """Read a support set within the budget's room for decoding, and price the plan for what it takes.

    A decode that takes more than the arena changes the peak but not the best plan; samples of another type than
    planned do, and are planned again.

    Raises:
        SupportError: the samples cannot be used, or one decode does not fit the budget.
    """
    room = None if request.memory_budget is None else request.memory_budget - plan.static_bytes
    spec, answers = files.manifest.input, files.loss.answers(files.program)
    support = read_support(path, spec, answers, plan.samples, room)
    give_back_freed_memory()
    if support.images.dtype == spec.stored_dtype:
        return with_decode(plan, support.decode_bytes), support
    return make_plan(files, request, target, support), support


def rehearse(files: BundleFiles, engine: Engine, plan: Plan) -> None:
    """Run one gradient step on one blank sample, so that library code is loaded before the baseline is taken.

    This takes less than the plan itself: every weight once, in memory that is given back, and a small arena.
    """
    spec, weights = files.manifest.input, files.weights
    sample = np.zeros((1, *spec.stored_shape), spec.stored_dtype)
    blank = SupportSet(sample, *files.loss.answers(files.program).blank(), spec)
    learning = {name for step in plan.layers for name in step}
    ever = np.array([[layer.name in learning for layer in files.program.layers]], np.float32)
    same = Fixed(**{**asdict(plan.choice), "micro_batch": 1})
    small = search_plan(files.program, ever, 1, 1, fixed=same, target=target_of(engine))
    private = Overlay(weights, {name: weights.copy(name) for name in weights.entries})
    with np.errstate(over="ignore", invalid="ignore"), suppress(NonFiniteError):
        engine.adapt(files.program, small, private, blank, 0, Hooks(measure=True))


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
        NonFiniteError: naming step and layer; the checkpoint keeps the last finished step.
        AdaptationInterrupted: Ctrl-C; likewise.
    """
    warm_up()
    give_back_freed_memory()
    with PeakMeter() as meter, np.errstate(over="ignore", invalid="ignore"):  # checked after every step
        plan, support = prepare()
        if checkpoint is not None:
            checkpoint = checkpoint.of(_key(files, plan, support, engine))
        adaptation = _adapt(files, engine, plan, support, checkpoint, progress, notify)
        weights = Overlay(files.weights, adaptation.updated)
        loss, accuracy = score(files, engine, weights, support)
    if not math.isfinite(loss):
        raise EdgeAdaptError(
            f"the support loss is {loss} after the last step: the step sizes are too large for these samples;"
            " adapt with fewer --steps"
        )
    return Outcome(plan, support, adaptation, meter, loss, accuracy, engine.plans)


def _adapt(
    files: BundleFiles,
    engine: Engine,
    plan: Plan,
    support: SupportSet,
    checkpoint: Checkpoint | None,
    progress: OnProgress | None,
    notify: Callable[[str], None],
) -> Adaptation:
    """Run the steps that are still to be done."""
    if checkpoint is None:
        return engine.adapt(files.program, plan, files.weights, support, 0, Hooks(progress, measure=True))
    try:
        kept = checkpoint.load()
    except BundleError as error:
        notify(f"{error}: it is discarded, the adaptation starts at step 1")
        kept = None
    losses = [] if kept is None else list(kept.losses)
    start = len(losses)
    if kept is not None:
        notify(f"{checkpoint.directory}: continuing after step {start} of {plan.steps}")
        if start == plan.steps:
            return Adaptation(kept.tensors, kept.losses, start, 0.0, None)

    def finished(done: int, tensors: Any, loss: float) -> None:
        losses.append(loss)
        checkpoint.save(tensors, tuple(losses))

    weights = files.weights if kept is None else Overlay(files.weights, kept.tensors)
    hooks = Hooks(progress, finished, measure=True)
    adaptation = engine.adapt(files.program, plan, weights, support, start, hooks)
    return replace(adaptation, losses=tuple(losses))


def _key(files: BundleFiles, plan: Plan, support: SupportSet, engine: Engine) -> dict[str, str]:
    """Return what two runs must share for one to continue the other."""
    digest = hashlib.sha256(json.dumps([support.images.dtype.str, support.images.shape]).encode())
    digest.update(np.ascontiguousarray(support.images).data)
    for part, values in sorted(support.loss_inputs().items()):
        digest.update(json.dumps([part, values.dtype.str, values.shape]).encode())
        digest.update(np.ascontiguousarray(values).data)
    digest.update(json.dumps(support.class_names).encode())
    chosen = (asdict(plan.choice), plan.samples, plan.layers, plan.cap_cut)
    planned = hashlib.sha256(json.dumps(chosen).encode())
    return {
        "bundle": files.identity,
        "support set": digest.hexdigest(),
        "plan": planned.hexdigest(),
        "engine": engine.name,
    }
