"""The losses in torch, for the self-test: random answers, and each sample's loss. Nothing is shared with the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class LossTruth:
    """One loss in torch.

    Attributes:
        answers: `answers(rng, shape of one sample's output, samples)`: the loss's inputs by part.
        value: `value(module, outputs of one sample (1, ...), its answers (1, ...), label smoothing)`: its loss.
    """

    answers: Callable[[np.random.Generator, Shape, int], dict[str, Array]]
    value: Callable[[nn.Module, Tensor, Mapping[str, Tensor], float], Tensor]


def _labels(rng: np.random.Generator, shape: Shape, samples: int) -> dict[str, Array]:
    return {"labels": np.arange(samples) % shape[-1]}


def _cross_entropy(
    module: nn.Module, outputs: Tensor, given: Mapping[str, Tensor], smoothing: float
) -> Tensor:
    return F.cross_entropy(outputs, given["labels"], label_smoothing=smoothing)


def _targets(rng: np.random.Generator, shape: Shape, samples: int) -> dict[str, Array]:
    return {"targets": _normal(rng, samples, *shape)}


def _squared_error(
    module: nn.Module, outputs: Tensor, given: Mapping[str, Tensor], smoothing: float
) -> Tensor:
    return F.mse_loss(outputs, given["targets"])


def _discrete_actions(rng: np.random.Generator, shape: Shape, samples: int) -> dict[str, Array]:
    actions = rng.integers(0, shape[-1], (samples, *shape[:-1]))
    return {"actions": actions, "advantages": _normal(rng, samples, *shape[:-1])}


def _categorical(module: nn.Module, outputs: Tensor, given: Mapping[str, Tensor], smoothing: float) -> Tensor:
    likelihood = outputs.log_softmax(-1).gather(-1, given["actions"][..., None])[..., 0]
    return -(given["advantages"] * likelihood).mean()


def _continuous_actions(rng: np.random.Generator, shape: Shape, samples: int) -> dict[str, Array]:
    return {"actions": _normal(rng, samples, *shape), "advantages": _normal(rng, samples, *shape[:-1])}


def _gaussian(module: nn.Module, outputs: Tensor, given: Mapping[str, Tensor], smoothing: float) -> Tensor:
    (log_std,) = (value for name, value in module.named_parameters() if name.rpartition(".")[2] == "log_std")
    variance = (2 * log_std).exp().expand_as(outputs)
    surprise = F.gaussian_nll_loss(outputs, given["actions"], variance, full=True, reduction="none").sum(-1)
    return (given["advantages"] * surprise).mean()


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def as_tensors(given: Mapping[str, Array]) -> dict[str, Tensor]:
    """Answers for torch: numbers in float64, indices as they are."""
    found = {name: torch.from_numpy(value) for name, value in given.items()}
    return {name: value.double() if value.is_floating_point() else value for name, value in found.items()}


TRUTHS: Mapping[str, LossTruth] = {
    "softmax-cross-entropy": LossTruth(_labels, _cross_entropy),
    "mean-squared-error": LossTruth(_targets, _squared_error),
    "categorical-policy-gradient": LossTruth(_discrete_actions, _categorical),
    "gaussian-policy-gradient": LossTruth(_continuous_actions, _gaussian),
}
