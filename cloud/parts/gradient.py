"""Runs of methods that adapt by gradient steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...edge.inputs import Spec
from ..config import RunConfig
from ..inner.network import Network
from ..lite import LiteConfig
from ..losses import Loss
from ..outer import Batch, Meta, MetaGradient, Method, MethodConfig
from ..pictures import step_sizes
from ..tasks import TaskSampler
from .base import Conclusion, Tick
from .batches import Drawn, draw_all
from .calibrate import Calibration, calibrate
from .initial import with_weights
from .score import Score, measure, score_before

ATTENTION_SETTINGS = (
    *("rho_fw", "rho_bw", "cap", "bw_input"),
    *("attention_over", "attention_ratio", "attention_masks"),
)


@dataclass(frozen=True)
class GradientParts:
    """A method on its network; see `Parts`."""

    config: RunConfig
    spec: Spec
    network: Network
    method: Method

    @property
    def loss(self) -> Loss:
        """See `Parts`."""
        return self.network.loss

    def init(self) -> Meta:
        """See `Parts`."""
        meta, weights = self.method.init(self.config.seed), self.config.train.initial_weights
        return meta if weights is None else with_weights(meta, Path(weights))

    def meta_gradient(self, meta: Meta, tasks: TaskSampler, first: int, progress: float) -> MetaGradient:
        """See `Parts`."""
        drawn = Drawn(tasks, first, self.config.train.tasks_per_step, _device(meta))
        return self.method.meta_gradient(meta, drawn, progress)

    def after_step(self, meta: Meta, result: MetaGradient, progress: float) -> Meta:
        """See `Parts`."""
        return self.method.after_step(meta, result, progress)

    def param_groups(self, meta: Meta, lr: float) -> list[dict[str, Any]]:
        """See `Parts`."""
        return self.method.param_groups(meta, lr)

    def eligible(self, meta: Meta, progress: float) -> bool:
        """What the method's hook of this name says, where it has one."""
        accepts = getattr(self.method, "eligible", None)
        return accepts is None or bool(accepts(meta, progress))

    def measure(
        self,
        meta: Meta,
        tasks: TaskSampler,
        count: int,
        tick: Tick = lambda done: None,
        batch: int | None = None,
    ) -> Score:
        """See `Parts`."""
        return measure(self.network, self.method.config, meta, _all(meta, tasks, count), tick, batch)

    def before(self, meta: Meta, tasks: TaskSampler, count: int) -> float | None:
        """See `Parts`."""
        return score_before(self.network, meta, _all(meta, tasks, count))

    def columns(self, meta: Meta) -> dict[str, float]:
        """See `Parts`."""
        return {"active_layers": int(meta.updated.sum()), "zero_step_sizes": meta.zero_share}

    def idle(self) -> dict[str, str]:
        """Settings that another one switches off."""
        return _idle(self.method.config, self.config.lite)

    def conclude(self, meta: Meta, validation: TaskSampler) -> Conclusion:
        """Calibrated on validation tasks: the layer table, and a picture of the step sizes."""
        tasks = _all(meta, validation, self.config.train.validation_tasks)
        calibration = calibrate(self.network, self.method.config, meta, tasks)
        names = [layer.name for layer in self.network.layers]
        benefits = [value for row in calibration.benefits for value in row]
        return Conclusion(
            tensors={**meta.learned, "alpha": meta.alpha},
            entries={
                "zero_step_sizes": meta.zero_share,
                "active_layers": int(meta.updated.sum()),
            },
            tables={"layers.json": self._layer_rows(calibration)},
            pictures={"step_sizes.png": partial(step_sizes, meta.alpha, names)},
            numbers={"benefit on validation tasks": benefits},
        )

    def _layer_rows(self, calibration: Calibration) -> list[dict[str, Any]]:
        """The layer table as plain values: geometry, then `macs`, `cap` and `benefit` per step."""
        return [
            {**asdict(layer), "macs": layer.macs, "cap": cap, "benefit": benefit}
            for layer, cap, benefit in zip(
                self.network.layers, calibration.caps, calibration.benefits, strict=True
            )
        ]


def _device(meta: Meta) -> torch.device:
    return next(iter(meta.learned.values())).device


def _all(meta: Meta, tasks: TaskSampler, count: int) -> Iterator[Batch]:
    """Tasks 0 .. count-1, where the meta-parameters are."""
    return (batch.to(_device(meta)) for batch in draw_all(tasks, count))


def _idle(method: MethodConfig, lite: LiteConfig) -> dict[str, str]:
    """Settings that another one switches off, with what they need."""
    needs = {
        "a rho_bw": (method.rho_bw is not None, ("bw_input",)),
        "attention = true": (method.attention, ATTENTION_SETTINGS),
        "a penalty": (method.penalty != "none", ("penalty_strength", "warmup_fraction")),
        'penalty = "peak"': (method.penalty == "peak", ("target_fraction", "prune_at")),
        "first_order = false": (not method.first_order, ("first_order_until",)),
        "inner_steps of 2 or more": (method.inner_steps > 1, ("multi_step_until",)),
    }
    found = {f"method.{name}": need for need, (met, names) in needs.items() if not met for name in names}
    return found if lite.h is not None else {**found, "lite.chunk": "lite.h"}
