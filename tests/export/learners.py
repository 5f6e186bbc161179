"""Small learners in plain torch: an extractor with FiLM after BatchNorm, a set encoder, generators; and their truth."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from edge_adapt.edge.inputs import ArraySpec, InputSpec
from edge_adapt.export.amortized import source_of_modules
from edge_adapt.export.amortized_bundle import write_amortized
from torch import Tensor, nn

SPEC = InputSpec(1, 14, 14, (0.5,), (0.3,))
CLASSES, EMBEDDING = 6, 5
KINDS = ("prototypes", "cnaps", "simple-cnaps")


class Film(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.reshape(-1, 1, 1) + self.shift.reshape(-1, 1, 1)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, film: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.film = Film(outputs) if film else nn.Identity()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(torch.relu(self.film(self.norm(self.conv(x)))))


def extractor(widths: tuple[int, ...], film: bool, colours: int = 1) -> nn.Sequential:
    """Blocks, then the mean over space: (n, colours, H, W) to (n, last width); statistics as if it were trained."""
    channels = (colours, *widths)
    blocks = [Block(before, after, film) for before, after in zip(channels, widths, strict=False)]
    module = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        for norm in (part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.uniform_(0.5, 2)
            norm.bias.normal_()
    return module.eval()


@dataclass(frozen=True)
class Learner:
    """As `cloud.amortized.Modules`."""

    extractor: nn.Module
    films: tuple[str, ...] = ()
    set_encoder: nn.Module | None = None
    film_generator: nn.Module | None = None
    head_generator: nn.Module | None = None


def learner(
    kind: str, seed: int = 0, film: bool = True, widths: tuple[int, ...] = (8, 12), colours: int = 1
) -> Learner:
    """A learner with random weights."""
    torch.manual_seed(seed)
    film = film and kind != "prototypes"
    features = extractor(widths, film, colours)
    head = nn.Sequential(nn.Linear(widths[-1], 9), nn.ReLU(), nn.Linear(9, widths[-1] + 1))
    generated = head if kind == "cnaps" else None
    if not film:
        return Learner(features, head_generator=generated)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = nn.Sequential(nn.Conv2d(colours, EMBEDDING, 3), nn.ReLU(), *pooled)
    generator = nn.Sequential(nn.Linear(EMBEDDING, 7), nn.ReLU(), nn.Linear(7, 2 * sum(widths)))
    films = tuple(f"{index}.film" for index in range(len(widths)))
    return Learner(features, films, encoder, generator, generated)


def write(
    path: Path,
    kind: str,
    made: Learner,
    spec: InputSpec | ArraySpec = SPEC,
    classes: int = CLASSES,
    covariance: str = "class",
) -> Path:
    """Write a learner's bundle."""
    source = source_of_modules(kind, made, spec, classes, name="tiny", covariance=covariance, samples=10)
    return write_amortized(source, path)


@dataclass(frozen=True)
class Truth:
    """What adapting must give, in plain torch and in the type of the inputs."""

    films: Tensor
    means: Tensor
    covariances: Tensor
    logits: Tensor


def truth(
    kind: str, made: Learner, support: Tensor, labels: Tensor, queries: Tensor, covariance: str
) -> Truth:
    """Adapt to a support set and score queries."""
    ways = int(labels.max()) + 1
    network, films = copy.deepcopy(made.extractor).to(support.dtype), torch.zeros(0)
    with torch.no_grad():
        if made.set_encoder is not None and made.film_generator is not None:
            encoder, generator = (
                copy.deepcopy(m).to(support.dtype) for m in (made.set_encoder, made.film_generator)
            )
            films = generator(encoder(support).mean(0, keepdim=True))[0]
            place = 0
            for name in made.films:
                film = network.get_submodule(name)
                for parameter in (film.scale, film.shift):
                    parameter.copy_(films[place : place + len(parameter)])
                    place += len(parameter)
        features, f = network(support), network(queries)
        means = torch.stack([features[labels == c].mean(0) for c in range(ways)])
        matrices = torch.stack([_covariance(features, features[labels == c]) for c in range(ways)])
        away = f[:, None] - means
        if kind == "cnaps" and made.head_generator is not None:
            row = copy.deepcopy(made.head_generator).to(support.dtype)(means)
            logits = f @ row[:, :-1].T + row[:, -1]
        elif kind == "simple-cnaps" and covariance == "class":
            logits = -torch.einsum("nci,cij,ncj->nc", away, torch.linalg.inv(matrices), away)
        else:
            logits = -away.square().sum(-1)
    return Truth(films, means, matrices, logits)


def _covariance(features: Tensor, own: Tensor) -> Tensor:
    share = len(own) / (len(own) + 1)
    blend = (1 - share) * torch.cov(features.T) + torch.eye(features.shape[1], dtype=features.dtype)
    return blend + share * torch.cov(own.T) if len(own) > 1 else blend
