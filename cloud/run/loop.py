"""The outer loop: meta-gradient, Adam, validation, model selection; each step makes a new state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..config import RunConfig
from ..errors import TrainingError
from ..parts.base import Parts
from ..tasks import TaskSampler
from . import adam
from .directory import RunDirectory
from .progress import Progress
from .state import Best, State


@dataclass(frozen=True)
class Job:
    """What the loop works with; nothing in it changes.

    Attributes:
        parts: configuration, network and method or learner.
        training: tasks of the training classes.
        validation: the fixed validation tasks.
        directory: where states are saved.
    """

    parts: Parts
    training: TaskSampler
    validation: TaskSampler
    directory: RunDirectory

    @property
    def config(self) -> RunConfig:
        """The settings in force."""
        return self.parts.config


def begin(job: Job) -> State:
    """The state before the first outer step, saved in a new run directory."""
    meta = job.parts.init().to(job.config.train.device)
    state = State(0, meta, adam.init(meta.learned))
    job.directory.begin(job.config)
    job.directory.save(state, job.config)
    return state


def run(job: Job, state: State, shown: Progress) -> State:
    """Train to the last step.

    Raises:
        TrainingError: a loss or residual is no number any more; the checkpoint on disk is the last good one.
        KeyboardInterrupt: after the last finished step was saved.
    """
    try:
        while True:
            if _validation_is_due(job.config, state):
                state = _validate(job, state)
                job.directory.save(state, job.config)
                shown.validated(state.history[-1])
            if state.step == job.config.train.outer_steps:
                return state
            state = _advance(job, state)
            shown.step(state)
    except KeyboardInterrupt:
        job.directory.save(state, job.config)
        raise


def _validation_is_due(config: RunConfig, state: State) -> bool:
    at_end = state.step == config.train.outer_steps or state.step % config.train.validate_every == 0
    return bool(state.pending) and at_end


def _advance(job: Job, state: State) -> State:
    """One outer step: tasks, meta-gradient, Adam, what the method does after it."""
    started = time.perf_counter()
    config, parts, step = job.config.train, job.parts, state.step + 1
    first, progress = state.step * config.tasks_per_step, state.step / config.outer_steps
    result = parts.meta_gradient(state.meta, job.training, first, progress)
    rates = _rates(job, state)
    learned, moments = adam.update(state.meta.learned, result.grads, state.adam, rates)
    _refuse_nan(job, step, result.metrics, (*learned.values(), *moments.second.values()))
    meta = parts.after_step(replace(state.meta, learned=learned), result, step / config.outer_steps)
    seconds = state.seconds + time.perf_counter() - started
    pending = (*state.pending, result.metrics)
    return replace(state, step=step, meta=meta, adam=moments, pending=pending, seconds=seconds)


def _rates(job: Job, state: State) -> dict[str, float]:
    """Adam's learning rate by name: the method's groups, all on the same cosine."""
    config = job.config.train
    floor = config.final_learning_rate / config.learning_rate
    decay = cosine(state.step / config.outer_steps, floor)
    groups = job.parts.param_groups(state.meta, config.learning_rate)
    return {name: group["lr"] * decay for group in groups for name in group["names"]}


def _refuse_nan(job: Job, step: int, metrics: Mapping[str, float], tensors: Iterable[Tensor] = ()) -> None:
    """Stop before numbers that are none reach the state; the means of squared gradients tell of the gradients, too."""
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not bad and not all_finite(tensors):
        bad = ["gradient or weight"]
    if bad:
        kept = job.directory.checkpoint
        raise TrainingError(
            f"{bad[0]} is not a number at outer step {step}; {kept} keeps the last good state, but --resume would come "
            "to the same end: start a new run with a lower train.learning_rate or method.inner_step_size, from random "
            f"weights or from the kept ones (--set train.initial_weights={kept})"
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number in some tensors is infinite or NaN; a GPU is waited for once."""
    found = [value.isfinite().all() for value in tensors]
    return not found or bool(torch.stack(found).all())


def _validate(job: Job, state: State) -> State:
    """Score the state on the validation tasks, and keep it if it is the best that the method accepts."""
    started = time.perf_counter()
    parts, config = job.parts, job.config.train
    score = parts.measure(state.meta, job.validation, config.validation_tasks)
    _refuse_nan(job, state.step, {"validation loss": score.loss})
    best = state.best
    eligible = parts.eligible(state.meta, state.step / config.outer_steps)
    if eligible and (best is None or score.of.better(score.value, best.score)):
        best = Best(state.step, score.value, state.meta)
    seconds = state.seconds + time.perf_counter() - started
    metric = score.of.metric
    row = {
        "step": state.step,
        "loss": _mean(state, "query_loss"),
        metric: _mean(state, f"query_{metric}"),
        "validation_loss": score.loss,
        f"validation_{metric}": score.value,
        "validation_ci95": score.ci95,
        **parts.columns(state.meta),
        "kept": int(best is not None and best.step == state.step),
        "seconds": round(seconds, 2),
    }
    common = ("query_loss", f"query_{metric}", "active_layers")  # what one method reports beside: own columns
    row |= {name: _mean(state, name) for name in state.pending[0] if name not in common}
    return replace(state, best=best, history=(*state.history, row), pending=(), seconds=seconds)


def _mean(state: State, name: str) -> float:
    return sum(metrics[name] for metrics in state.pending) / len(state.pending)


def cosine(progress: float, floor: float) -> float:
    """Factor on a learning rate: from 1 at progress 0 along half a cosine to `floor` at progress 1."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
