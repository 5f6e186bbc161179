"""A meta-training run becomes a source."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cloud import AmortizedRun, TrainedRun
from .amortized import AmortizedSource, source_of_modules
from .source import SIDES, AttentionModule, AttentionSettings, Side, Source

_PARTS = ("hidden.weight", "hidden.bias", "out.weight", "out.bias")


LEARNERS = {"protonets": "prototypes", "cnaps": "cnaps", "simple-cnaps": "simple-cnaps"}
"""The kind of bundle by the learner's name."""


def source_of_learner(run: AmortizedRun, classes: int | None = None) -> AmortizedSource:
    """Take from a run of a learner that adapts by forward passes what the device needs.

    Args:
        run: the run.
        classes: outputs of the head; None: the classes of a task.

    Raises:
        ExportError: a module cannot be exported.
    """
    method = run.config.method
    return source_of_modules(
        LEARNERS[method.name],
        run.modules(),
        run.spec,
        run.config.task.ways if classes is None else classes,
        name=_name(run),
        covariance=method.covariance,
        samples=run.samples,
        provenance=_provenance(run),
    )


def source_of_run(run: TrainedRun) -> Source:
    """Take from a run with gradient steps what the device needs.

    Raises:
        ExportError: parts of the run do not fit together.
    """
    layers = tuple(layer.name for layer in run.layers)
    method = run.parts.method.config
    caps = [[0] * len(run.alpha) if cap is None else cap for cap in run.caps]
    return Source(
        name=_name(run),
        module=run.module(),
        input=run.spec,
        layer_names=layers,
        alpha=run.alpha.detach().cpu().numpy().astype(np.float32),
        attention=_attention(run, layers) if run.rho is not None else {},
        settings=AttentionSettings(method.rho_fw or 0.0, method.rho_bw or 0.0, method.cap, method.bw_input),
        samples=run.samples,
        caps=np.array(caps, np.int64).T,
        benefits=np.array(run.benefits, np.float64).T,
        provenance=_provenance(run),
        loss=run.parts.network.loss.name,
    )


def _attention(run: TrainedRun, layers: tuple[str, ...]) -> dict[str, dict[Side, AttentionModule]]:
    found: dict[str, dict[Side, AttentionModule]] = {}
    for layer in layers:
        for side in SIDES:
            names = [f"attention.{layer}.{side}.{part}" for part in _PARTS]
            if names[0] in run.attention:
                parts = (run.attention[name].detach().cpu().numpy() for name in names)
                found.setdefault(layer, {})[side] = AttentionModule(*parts)
    return found


def _name(run: TrainedRun | AmortizedRun) -> str:
    return "-".join((run.config.backbone.rpartition(":")[2], run.config.data.name, run.config.method.name))


def _provenance(run: TrainedRun | AmortizedRun) -> dict[str, Any]:
    test, metric = run.result["test"], run.parts.loss.metric
    return {
        "recipe": run.result["recipe"],
        "method": run.result["method"],
        "data": run.result["data"],
        "ways": run.result["ways"],
        "shots": run.result["shots"],
        "seed": run.result["seed"],
        "versions": run.result["versions"],
        "meta_test": {name: test[name] for name in (metric, "ci95", "tasks")},
    }
