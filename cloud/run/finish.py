"""After the last outer step: test the kept model, draw the pictures, write the results."""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from ..errors import TrainingError
from ..parts.base import Conclusion
from ..parts.score import Score
from ..pictures import learning_curve
from ..tasks import TaskSampler
from .directory import replace_json, replace_tensors
from .loop import Job
from .progress import Progress
from .state import Best, State

PACKAGES = ("edge-adapt", "torch", "numpy")


def finish(job: Job, state: State, test: TaskSampler, shown: Progress) -> None:
    """Write model, tables, pictures and, last, the result.

    Raises:
        TrainingError: no validated state met the method's constraint, or the kept one diverges on some task;
            nothing is written.
    """
    if state.best is None:
        raise TrainingError(
            f"{job.directory.path}: no validated state met the method's constraint; train longer"
        )
    parts, meta, config = job.parts, state.best.meta, job.config.train
    shown.note(f"testing the state of step {state.best.step}")
    score = parts.measure(meta, test, config.test_tasks)
    score = replace(score, before=parts.before(meta, test, config.test_tasks))
    conclusion = parts.conclude(meta, job.validation)
    _refuse_nan(job, score, conclusion)
    replace_tensors(job.directory.model, conclusion.tensors)
    for name, table in conclusion.tables.items():
        replace_json(job.directory.path / name, table)
    learning_curve(state.history, job.directory.path / "learning_curve.png", parts.loss)
    for name, picture in conclusion.pictures.items():
        picture(job.directory.path / name)
    if conclusion.entries.get("active_layers") == 0:
        shown.warn(
            "no layer is active: every step size of the kept state is 0, so it does not adapt at all; train again "
            "with a lower method.penalty_strength"
        )
    replace_json(job.directory.result, {**_result(job, state, state.best, score), **conclusion.entries})


def _refuse_nan(job: Job, score: Score, conclusion: Conclusion) -> None:
    measured = {"test loss": [score.loss], f"test {score.of.words}": [score.value], **conclusion.numbers}
    for name, values in measured.items():
        if not all(map(math.isfinite, values)):
            raise TrainingError(
                f"{job.directory.path}: the {name} of the kept state is not a number, so adaptation diverges; "
                "start again with a lower method.inner_step_size or train.learning_rate"
            )


def _result(job: Job, state: State, best: Best, score: Score) -> dict[str, Any]:
    row = next(row for row in state.history if row["step"] == best.step)
    config = job.config
    return {
        "recipe": config.recipe,
        "method": config.method.name,
        "backbone": config.backbone,
        "data": config.data.name,
        "ways": config.task.ways,
        "shots": config.task.shots,
        "outputs": job.validation.outputs,
        "loss": score.of.name,
        "seed": config.seed,
        "step": best.step,
        "validation": {
            score.of.metric: row[f"validation_{score.of.metric}"],
            "ci95": row["validation_ci95"],
            "tasks": config.train.validation_tasks,
        },
        "test": score.to_json(),
        **_residual(state),
        "seconds": round(state.seconds, 1),
        "input": job.parts.spec.to_json(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def _residual(state: State) -> dict[str, float]:
    """Of an implicit method, how far its inner problems were from solved, mean since the last but one validation."""
    return {name: value for name, value in state.history[-1].items() if name == "lower_residual"}
