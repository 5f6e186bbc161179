"""What PyTorch says about losses and array inputs, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from edge_adapt.edge.inputs import ArraySpec
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def torch_loss(name: str, outputs: Any, given: Arrays, log_std: Any) -> Any:
    """Mean loss by PyTorch's own functions and distributions."""
    values = {name: torch.from_numpy(array) for name, array in given.items()}
    if name == "softmax-cross-entropy":
        return torch.nn.functional.cross_entropy(outputs, values["labels"])
    if name == "mean-squared-error":
        return torch.nn.functional.mse_loss(outputs, values["targets"].double())
    if name == "categorical-policy-gradient":
        density = torch.distributions.Categorical(logits=outputs).log_prob(values["actions"])
    else:
        policy = torch.distributions.Normal(outputs, log_std.exp().expand_as(outputs))
        density = policy.log_prob(values["actions"].double()).sum(-1)
    return -(values["advantages"].double() * density).mean()


def network_input(spec: ArraySpec, values: NDArray[np.float32]) -> Any:
    """(value - mean) / std along the first axis of a sample, in float64."""
    shape = (1, -1, *[1] * (len(spec.shape) - 1))
    mean, std = (torch.tensor(n, dtype=torch.float64).reshape(shape) for n in (spec.mean, spec.std))
    return (torch.from_numpy(values).double() - mean) / std
