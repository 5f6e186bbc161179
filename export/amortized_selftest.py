"""The self-test of a bundle that adapts by forward passes: a few samples, and what adapting to them must give.

It shares no code with the device: torch in float64, the modules as they were before anything was folded.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..edge.reference.interpret import interpret
from .selftest import ENTRIES, SEED, random_samples

if TYPE_CHECKING:
    from .amortized import AmortizedSource, Part

LABELS = (0, 1, 2, 0, 1, 0)
"""With one class of a single sample, where there are three."""


def amortized_selftest(source: AmortizedSource, head: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of `selftest.safetensors`: samples, labels, norms and entries of what is written and of the logits.

    Of the head, and of the logits, only what belongs to the classes in use.

    Args:
        source: the networks.
        head: names of the head's two parameters.
    """
    labels = torch.tensor([label % min(3, source.classes) for label in LABELS])
    images = random_samples(source.input, len(labels), SEED)
    inputs = torch.from_numpy(source.input.preprocess(images)).double()
    films = {} if source.generator is None else _films(source, inputs)
    features = _features(source, inputs, films)
    params, logits = _head(source, features, labels)
    expected = {**films, **dict(zip(head, params, strict=True)), "logits": logits}
    tests: dict[str, NDArray[Any]] = {"images": images, "labels": labels.numpy()}
    for name, value in expected.items():
        tests |= _digest(name, value.flatten())
    return tests


def _digest(name: str, values: Tensor) -> dict[str, NDArray[Any]]:
    """Norm, and entries at floor(i * size / count) + i mod floor(size / count), of a flat tensor."""
    count = min(ENTRIES, len(values))
    numbers = torch.arange(count)
    chosen = values[numbers * len(values) // count + numbers % (len(values) // count)]
    return {
        f"norm::{name}": np.array([values.norm()], np.float32),
        f"entries::{name}": chosen.numpy().astype(np.float32),
    }


def _run(part: Part, inputs: Tensor) -> Tensor:
    """Outputs of a network in float64; one of an ONNX file by the NumPy meaning of its program."""
    if part.module is not None:
        with torch.no_grad():
            found: Tensor = copy.deepcopy(part.module).to("cpu", torch.float64).eval()(inputs)
        return found
    program = part.network.program
    values = {**part.network.values, program.inputs["images"]: inputs.numpy()}
    name = program.outputs["logits"]
    return torch.from_numpy(interpret(program, values, [name], np.float64)[name])


def _films(source: AmortizedSource, inputs: Tensor) -> dict[str, Tensor]:
    """Scale and shift of every film by parameter name."""
    assert source.encoder is not None
    assert source.generator is not None
    (row,) = _run(source.generator, _run(source.encoder, inputs).mean(0, keepdim=True))
    module, found = source.extractor.module, {}
    assert module is not None
    for film in source.films:
        for part in ("scale", "shift"):
            width = module.get_parameter(f"{film}.{part}").numel()
            found[f"{film}.{part}"], row = row[:width], row[width:]
    return found


def _features(source: AmortizedSource, inputs: Tensor, films: Mapping[str, Tensor]) -> Tensor:
    part = source.extractor
    if not films or part.module is None:
        return _run(part, inputs)
    module: nn.Module = copy.deepcopy(part.module).double()
    with torch.no_grad():
        for name, value in films.items():
            module.get_parameter(name).copy_(value)
    return _run(type(part)(part.network, module), inputs)


def _head(source: AmortizedSource, features: Tensor, labels: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What the head becomes and the logits, of the classes in use."""
    ways = int(labels.max()) + 1
    means = torch.stack([features[labels == c].mean(0) for c in range(ways)])
    if source.measures_distance:
        factors = torch.stack([_inverse_factor(features, features[labels == c]) for c in range(ways)])
        away = torch.einsum("cij,ncj->nci", factors, features[:, None] - means)
        return (means, factors), -away.square().sum(-1)
    if source.head is not None:
        row = _run(source.head, means)
        weight, bias = row[:, :-1], row[:, -1]
    else:
        away = means - means.mean(0)
        weight, bias = 2 * away, -(away * (means + means.mean(0))).sum(1)
    return (weight, bias), features @ weight.T + bias


def _inverse_factor(features: Tensor, own: Tensor) -> Tensor:
    share = len(own) / (len(own) + 1)
    blend = (1 - share) * torch.cov(features.T) + torch.eye(features.shape[1]).double()
    if len(own) > 1:
        blend = blend + share * torch.cov(own.T)
    inverse: Tensor = torch.linalg.inv(torch.linalg.cholesky(blend))
    return inverse
