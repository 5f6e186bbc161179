"""The problems of lite_bias.py: a trained learner and a task of classes it has not seen, 5-way 10-shot with 25 queries.

`glyphs`: characters of unseen scripts at 8 x 8 pixels, ResNet12 with two blocks of 8 and 16 channels, trained as
ProtoNets first, then as each learner. `miniimagenet`: test classes at 84 pixels, the ResNet18 learners that lite.py
trains (study `extractor`, seed 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from edge_adapt.cloud import AmortizedRun, load_run
from edge_adapt.cloud.amortized import LEARNERS
from edge_adapt.cloud.amortized.amortized import Amortized
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import Meta, MethodConfig
from edge_adapt.cloud.run import adam
from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset
from edge_adapt.cloud.tasks.task import Samples, Stored, Task
from torch import Tensor, nn
from torch.nn import functional as F

WAYS, SHOTS, QUERIES = 5, 10, 5
N = WAYS * SHOTS
SIZE = 8
"""Pixels of a character's side."""
SEED = 0
STEPS, RATE = (400, 100), 1e-3
"""Training steps of the characters' extractor, and of the learner; Adam's rate."""


@dataclass(frozen=True)
class Problem:
    """A trained learner and a task.

    Attributes:
        learner: its name.
        module: the backbone with the extractor's weights.
        method: the learner's settings.
        meta: the meta-parameters.
        task: N support samples.
        shape: (C, H, W) of them.
    """

    learner: str
    module: nn.Module
    method: MethodConfig
    meta: Meta
    task: Task
    shape: tuple[int, ...]

    def with_lite(self, **settings: Any) -> Amortized:
        """The learner with these settings of [lite]."""
        made = LEARNERS[self.learner](self.module, self.shape, self.method, LiteConfig(**settings))
        return cast(Amortized, made)

    def exact(self) -> Mapping[str, Tensor]:
        """The gradient through the whole support set, by name."""
        return self.with_lite().task_gradient(self.meta, self.task).grads


def characters(learner: str, index: int, steps: tuple[int, int] = STEPS) -> Problem:
    """Train the extractor as ProtoNets, then the learner; take a task of unseen characters."""
    training, unseen = sampler("glyphs", "train"), sampler("glyphs", "test")
    shape = (1, SIZE, SIZE)
    module = build_backbone("resnet12", shape, WAYS, SEED, {"channels": (8, 16)})
    task = small(unseen.task(index))
    protonets = Problem("protonets", module, MethodConfig(), Meta({}, {}), task, shape)
    meta = trained(protonets.with_lite(), training, steps[0])
    weights = {name.removeprefix("extractor."): value for name, value in meta.learned.items()}
    module.load_state_dict({**module.state_dict(), **weights})
    if learner == "protonets":
        return replace(protonets, meta=meta)
    found = replace(protonets, learner=learner)
    return replace(found, meta=trained(found.with_lite(), training, steps[1]))


def sampler(data: str, split: str, folder: Path | None = None) -> EpisodeSampler:
    """Tasks of N support samples."""
    dataset = load_dataset(data, split, folder)
    return EpisodeSampler(dataset, ways=WAYS, shots=SHOTS, queries=QUERIES, seed=SEED)


def trained(learner: Amortized, tasks: EpisodeSampler, steps: int) -> Meta:
    """Adam with exact gradients, one task per step."""
    meta = learner.init(SEED)
    state, rates = adam.init(meta.learned), dict.fromkeys(meta.learned, RATE)
    for index in range(steps):
        result = learner.meta_gradient(meta, [small(tasks.task(index))], index / steps)
        learned, state = adam.update(meta.learned, result.grads, state, rates)
        meta = replace(meta, learned=learned)
    return meta


def small(task: Task) -> Task:
    """The task with images of SIZE x SIZE pixels in memory."""
    return replace(task, support=shrunk(task.support), query=shrunk(task.query))


def shrunk(samples: Samples) -> Stored:
    """All samples, averaged over squares of pixels."""
    return Stored(F.adaptive_avg_pool2d(samples.take(torch.arange(len(samples))), SIZE))


def photographs(learner: str, index: int, runs: Path, data: Path) -> Problem:
    """Load a learner that lite.py has trained, and a task of test classes.

    Raises:
        edge_adapt.cloud.ConfigError: it has not been trained yet.
    """
    run = load_run(runs / f"extractor-{learner}-0")
    assert isinstance(run, AmortizedRun)
    task = sampler("miniimagenet", "test", data).task(index)
    return Problem(learner, run.parts.module, run.config.method, run.meta, task, run.spec.shape)


@dataclass(frozen=True)
class Source:
    """Where problems come from, and how much of them is affordable.

    Attributes:
        make: a learner's name, index of a task, directory of the runs of lite.py, directory of the data sets.
        size: pixels of an image's side.
        tasks: how many.
        lite: draws of LITE where each is a backward pass through the set encoder.
        subsampled: draws of sub-sampled support sets.
    """

    make: Callable[[str, int, Path, Path], Problem]
    size: int
    tasks: int
    lite: int
    subsampled: int


SOURCES: Mapping[str, Source] = {
    "glyphs": Source(lambda learner, index, *_: characters(learner, index), SIZE, 1, 5000, 500),
    "miniimagenet": Source(photographs, 84, 3, 15, 10),
}
