"""Adapting by gradient steps: how the support set is read, the rehearsal, and steps that are kept as they finish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .bundle import BundleFiles, Checkpoint, Overlay
from .engines import Adaptation, Engine, Hooks, NonFiniteError, Progress
from .errors import BundleError
from .inputs import AnySupport, SupportSet, read_support
from .lower import Target
from .plan import Plan, search_plan, with_decode
from .plan.space import Fixed
from .planning import Request, make_plan, target_of
from .process import give_back_freed_memory


class ByGradient:
    """See `way.Way`."""

    overflow: ClassVar[str] = (
        "after the last step: the step sizes are too large for these samples; adapt with fewer --steps"
    )

    def outline(self, files: BundleFiles, request: Request, target: Target) -> Plan:
        """Plan for the samples that are asked for; a support set changes little of it."""
        return make_plan(files, request, target)

    def read(
        self, files: BundleFiles, request: Request, plan: Plan, target: Target, path: Path
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

    def rehearse(self, files: BundleFiles, engine: Engine, plan: Plan) -> None:
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
        self,
        files: BundleFiles,
        engine: Engine,
        plan: Plan,
        support: AnySupport,
        checkpoint: Checkpoint | None,
        progress: Callable[[Progress], None] | None,
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

    def key(self, files: BundleFiles, plan: Plan, support: AnySupport, engine: Engine) -> Mapping[str, str]:
        """Digests of bundle, support set and plan, and the engine's name."""
        assert isinstance(support, SupportSet)
        return _key(files, plan, support, engine)


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
