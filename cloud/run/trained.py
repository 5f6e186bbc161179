"""A finished run as one value: what export and evaluation start from."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...edge.cost import Layer
from ...edge.errors import BundleError
from ...edge.inputs import InputSpec, Spec, spec_from_json
from ..amortized import Learner, Modules
from ..config import RunConfig
from ..errors import ConfigError
from ..files import read_json, read_text, table_with
from ..outer import Meta
from ..parts.assemble import assemble, parts_of
from ..parts.base import Parts
from ..parts.gradient import GradientParts
from ..parts.learner import LearnerParts
from ..parts.score import Score
from .directory import RunDirectory, read_config


@dataclass(frozen=True)
class FinishedRun:
    """What all finished runs have.

    Attributes:
        path: the run directory.
        config: the resolved configuration.
        parts: what was trained, as built for the configuration (its own weights are not trained).
        meta: what was learned, and what was kept fixed.
        spec: shape and preprocessing of a sample.
        result: the content of result.json.
    """

    path: Path
    config: RunConfig
    parts: Parts
    meta: Meta
    spec: Spec
    result: dict[str, Any]

    @property
    def samples(self) -> int:
        """Support set size N of a task."""
        return self.config.task.ways * self.config.task.shots

    @property
    def outputs(self) -> int:
        """Outputs of the network: classes, or numbers in a target."""
        return int(self.result.get("outputs", self.config.task.ways))

    @property
    def test(self) -> Score:
        """What was reached on the test tasks."""
        return Score.from_json(self.result["test"], self.parts.loss)


@dataclass(frozen=True)
class AmortizedRun(FinishedRun):
    """A meta-trained learner that adapts by forward passes; `FinishedRun` says more."""

    parts: LearnerParts
    spec: InputSpec

    @property
    def learner(self) -> Learner:
        """The learner as built for the configuration."""
        return self.parts.learner

    @property
    def line(self) -> str:
        """What there is to say beside the score."""
        return f"adapts by forward passes, {self.learner.modules.features} features"

    def modules(self) -> Modules:
        """Fresh modules carrying the meta-learned weights, in evaluation mode."""
        return self.learner.modules.carrying({**self.meta.learned, **self.meta.fixed})


@dataclass(frozen=True)
class TrainedRun(FinishedRun):
    """A model meta-trained for gradient steps, with everything the device needs to know of it. K steps, L layers.

    Attributes:
        parts: network and method.
        meta: learned weights and attention parameters; `meta.alpha` float32 (K, L) holds the step sizes.
        caps: per layer, per step: most channels that forward attention keeps for a sample (99th percentile),
            0 where the layer is not updated; None for layers without attention.
        benefits: per layer, per step: mean first-order loss decrease alpha * <g, gamma * g>.
    """

    parts: GradientParts
    caps: tuple[tuple[int, ...] | None, ...]
    benefits: tuple[tuple[float, ...], ...]

    @property
    def line(self) -> str:
        """What there is to say beside the score."""
        return (
            f"{self.result['active_layers']} of {len(self.layers)} layers active, "
            f"{self.result['zero_step_sizes']:.0%} of the step sizes zero"
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layer table in execution order."""
        return self.parts.network.layers

    @property
    def alpha(self) -> Tensor:
        """Step sizes (K, L), exact zeros where a layer is not updated."""
        return self.meta.alpha

    @property
    def attention(self) -> dict[str, Tensor]:
        """Attention parameters, `attention.LAYER.fw|bw.hidden|out.weight|bias`; empty without attention."""
        return {name: value for name, value in self.meta.learned.items() if name.startswith("attention.")}

    @property
    def rho(self) -> tuple[float | None, float | None] | None:
        """Clip ratios (forward, backward) of meta attention, None where a side is off; None without attention."""
        settings = self.parts.method.config
        return (settings.rho_fw, settings.rho_bw) if settings.attention else None

    def module(self) -> nn.Module:
        """A fresh backbone carrying the meta-learned weights, in evaluation mode.

        Raises:
            ConfigError: the run is an ablation that only meta-training knows.
        """
        self._refuse_what_no_device_does()
        module = assemble(self.config, self.spec, self.outputs).network.module
        learned = {name: self.meta.learned[name] for name, _ in module.named_parameters()}
        module.load_state_dict(learned, strict=False)
        return module.eval()

    def _refuse_what_no_device_does(self) -> None:
        network, settings = self.parts.network, self.parts.method.config
        mixing = [layer.name for i, layer in enumerate(self.layers) if network.kind(i).mixes_samples]
        if mixing:
            raise ConfigError(
                f"{self.path}: layer {mixing[0]} was meta-trained with the statistics of its batch, which a device "
                'that takes one sample at a time does not have; meta-train with architecture.norm = "group"'
            )
        if settings.channel_alpha:
            raise ConfigError(
                f"{self.path}: the device has no step sizes of channels; meta-train with "
                "method.channel_alpha = false"
            )
        if settings.attention and settings.attention_masks != "gradients":
            raise ConfigError(
                f"{self.path}: the device's attention scales weight gradients; meta-train with "
                'method.attention_masks = "gradients"'
            )


def load_run(path: str | PathLike[str]) -> TrainedRun | AmortizedRun:
    """Read a finished run directory.

    Raises:
        ConfigError: it is none, is not finished, or a file in it is damaged.
    """
    directory = RunDirectory(Path(path))
    config = read_config(directory.path)
    if not directory.result.is_file():
        if directory.failed.is_file():
            raise ConfigError(
                f"{path} has no result, its training failed: {read_text(directory.failed).strip()}"
            )
        raise ConfigError(f"{path} is not finished (no result.json): go on with meta-train run ... --resume")
    try:
        result = table_with(directory.result, read_json(directory.result), ("input", "test"))
        tensors = load_file(directory.model)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} is damaged ({error}); train again") from None
    parts = parts_of(config, _spec(directory, result), result.get("outputs"))
    table_with(directory.result, result["test"], (config.loss.metric, "ci95", "loss", "tasks"))
    if isinstance(parts, LearnerParts):
        return _amortized(directory, config, parts, tensors, result)
    layers = _layers(directory, parts)
    return TrainedRun(
        path=directory.path,
        config=config,
        parts=parts,
        meta=_checked(directory, parts, tensors),
        spec=parts.spec,
        result=result,
        caps=tuple(None if row["cap"] is None else tuple(row["cap"]) for row in layers),
        benefits=tuple(tuple(row["benefit"]) for row in layers),
    )


def _spec(directory: RunDirectory, result: dict[str, Any]) -> Spec:
    try:
        return spec_from_json(table_with(directory.result, result["input"], ()))
    except BundleError as error:
        raise ConfigError(f"{directory.result} is damaged ({error}); train again") from None


def _layers(directory: RunDirectory, parts: GradientParts) -> list[dict[str, Any]]:
    """The layer table, one row for each layer of the network."""
    rows, expected = read_json(directory.layers), len(parts.network.layers)
    if not isinstance(rows, list) or len(rows) != expected:
        raise ConfigError(f"{directory.layers} is damaged (expected {expected} rows); train again")
    return [table_with(directory.layers, row, ("cap", "benefit")) for row in rows]


def _amortized(
    directory: RunDirectory,
    config: RunConfig,
    parts: LearnerParts,
    tensors: dict[str, Tensor],
    result: dict[str, Any],
) -> AmortizedRun:
    _refuse_infinite(directory, tensors)
    learned = parts.learner.init(config.seed).learned.keys()
    meta = Meta(
        {name: value for name, value in tensors.items() if name in learned},
        {name: value for name, value in tensors.items() if name not in learned},
    )
    run = AmortizedRun(directory.path, config, parts, meta, parts.spec, result)
    try:
        run.modules()
    except ValueError as error:
        raise ConfigError(f"{directory.model}: {error}") from None
    return run


def _refuse_infinite(directory: RunDirectory, tensors: dict[str, Tensor]) -> None:
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise ConfigError(f"{directory.model}: {name} has values that are not finite; train again")


def _checked(directory: RunDirectory, parts: GradientParts, tensors: dict[str, Tensor]) -> Meta:
    """Every tensor that the method learns, of its shape and finite, and the step sizes."""
    start = parts.method.init(parts.config.seed)
    for name, value in {"alpha": start.alpha, **start.learned}.items():
        found = tensors.get(name)
        shape = None if found is None else tuple(found.shape)
        if shape != tuple(value.shape):
            raise ConfigError(
                f"{directory.model}: {name}: expected {tuple(value.shape)}, got {shape or 'nothing'}"
            )
    _refuse_infinite(directory, tensors)
    return Meta(
        {name: value for name, value in tensors.items() if name != "alpha"}, {"alpha": tensors["alpha"]}
    )
