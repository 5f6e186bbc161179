"""After the last outer step: test the kept model, calibrate it, draw the pictures, write the results."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from .assemble import draw_all
from .calibrate import Calibration, calibrate
from .loop import Job, TrainingError
from .pictures import learning_curve, step_sizes
from .progress import Progress
from .run_directory import replace_json, replace_tensors
from .score import Score, measure, score_before
from .state import Best, State
from .tasks import TaskSampler

PACKAGES = ("edge-adapt", "torch", "numpy")


def finish(job: Job, state: State, test: TaskSampler, shown: Progress) -> None:
    """Write model, layer table, pictures and, last, the result.

    Raises:
        TrainingError: no validated state met the method's constraint, or the kept one diverges on some task;
            nothing is written.
    """
    if state.best is None:
        raise TrainingError(
            f"{job.directory.path}: no validated state met the method's constraint; train longer"
        )
    parts, meta, config = job.parts, state.best.meta, job.config.train
    shown.note(f"testing and calibrating the state of step {state.best.step}")
    network, settings = parts.network, parts.method.config
    calibration = calibrate(network, settings, meta, draw_all(job.validation, config.validation_tasks))
    score = measure(network, settings, meta, draw_all(test, config.test_tasks))
    score = replace(score, before=score_before(network, meta, draw_all(test, config.test_tasks)))
    _refuse_nan(job, score, calibration)
    replace_tensors(job.directory.model, {**meta.learned, "alpha": meta.alpha})
    replace_json(job.directory.layers, layer_rows(job, calibration))
    learning_curve(state.history, job.directory.path / "learning_curve.png", network.loss)
    step_sizes(meta.alpha, [layer.name for layer in network.layers], job.directory.path / "step_sizes.png")
    replace_json(job.directory.result, _result(job, state, state.best, score))


def _refuse_nan(job: Job, score: Score, calibration: Calibration) -> None:
    measured = {
        "test loss": [score.loss],
        f"test {score.of.words}": [score.value],
        "benefit on validation tasks": [value for row in calibration.benefits for value in row],
    }
    for name, values in measured.items():
        if not all(map(math.isfinite, values)):
            raise TrainingError(
                f"{job.directory.path}: the {name} of the kept state is not a number, so adaptation diverges; "
                "start again with a lower method.inner_step_size or train.learning_rate"
            )


def layer_rows(job: Job, calibration: Calibration) -> list[dict[str, Any]]:
    """The layer table as plain values: geometry, then `macs`, `cap` and `benefit` per step."""
    return [
        {**asdict(layer), "macs": layer.macs, "cap": cap, "benefit": benefit}
        for layer, cap, benefit in zip(
            job.parts.network.layers, calibration.caps, calibration.benefits, strict=True
        )
    ]


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
        "zero_step_sizes": best.meta.zero_share,
        "active_layers": int(best.meta.updated.sum()),
        "seconds": round(state.seconds, 1),
        "input": job.parts.spec.to_json(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
