"""A finished run as one value: what export and evaluation start from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..edge.cost import Layer
from ..edge.inputs import Spec, spec_from_json
from .assemble import Parts, assemble
from .config import RunConfig
from .errors import ConfigError
from .outer import Meta
from .run_directory import RunDirectory, read_config
from .score import Score


@dataclass(frozen=True)
class TrainedRun:
    """A meta-trained model with everything the device needs to know about it. K steps, L layers.

    Attributes:
        path: the run directory.
        config: the resolved configuration.
        parts: network and method as built for the configuration (the network's own weights are not trained).
        meta: learned weights and attention parameters; `meta.alpha` float32 (K, L) holds the step sizes.
        spec: shape and preprocessing of a sample.
        caps: per layer, per step: most channels that forward attention keeps for a sample (99th percentile),
            0 where the layer is not updated; None for layers without attention.
        benefits: per layer, per step: mean first-order loss decrease alpha * <g, gamma * g>.
        result: the content of result.json.
    """

    path: Path
    config: RunConfig
    parts: Parts
    meta: Meta
    spec: Spec
    caps: tuple[tuple[int, ...] | None, ...]
    benefits: tuple[tuple[float, ...], ...]
    result: dict[str, Any]

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

    @property
    def samples(self) -> int:
        """Support set size N of a meta-training task."""
        return self.config.task.ways * self.config.task.shots

    @property
    def outputs(self) -> int:
        """Outputs of the network: classes, or numbers in a target."""
        return int(self.result.get("outputs", self.config.task.ways))

    @property
    def test(self) -> Score:
        """What was reached on the test tasks."""
        return Score.from_json(self.result["test"], self.parts.network.loss)

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


def load_run(path: str | PathLike[str]) -> TrainedRun:
    """Read a finished run directory.

    Raises:
        ConfigError: it is none, is not finished, or a file in it is damaged.
    """
    directory = RunDirectory(Path(path))
    config = read_config(directory.path)
    if not directory.result.is_file():
        raise ConfigError(f"{path} is not finished (no result.json): go on with meta-train run ... --resume")
    try:
        layers = json.loads(directory.layers.read_text(encoding="utf-8"))
        result = json.loads(directory.result.read_text(encoding="utf-8"))
        tensors = load_file(directory.model)
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        raise ConfigError(f"{path} is damaged ({error}); train again") from None
    spec = spec_from_json(result["input"])
    parts = assemble(config, spec, result.get("outputs"))
    alpha = tensors.pop("alpha")
    return TrainedRun(
        path=directory.path,
        config=config,
        parts=parts,
        meta=_checked(directory, parts, tensors, alpha),
        spec=spec,
        caps=tuple(None if row["cap"] is None else tuple(row["cap"]) for row in layers),
        benefits=tuple(tuple(row["benefit"]) for row in layers),
        result=result,
    )


def _checked(directory: RunDirectory, parts: Parts, learned: dict[str, Tensor], alpha: Tensor) -> Meta:
    expected = (parts.config.method.inner_steps, len(parts.network.layers))
    if tuple(alpha.shape) != expected:
        raise ConfigError(
            f"{directory.model}: alpha: expected {expected} (steps, layers), got {tuple(alpha.shape)}"
        )
    for name, value in parts.network.weights().items():
        found = learned.get(name, torch.empty(0))
        if found.shape != value.shape:
            raise ConfigError(
                f"{directory.model}: {name}: expected {tuple(value.shape)}, got {tuple(found.shape)}"
            )
    return Meta(learned, {"alpha": alpha})
