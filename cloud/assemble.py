"""From a configuration to the objects of a run; what does not fit together fails here, before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..edge.inputs import InputSpec
from .config import FOLDER, DataConfig, RunConfig, TaskConfig, method_settings
from .errors import ConfigError
from .inner.network import Network
from .models import build_backbone
from .outer import METHODS, Batch, Method
from .tasks import Dataset, EpisodeSampler, load_dataset

EVALUATION_SEEDS = {"val": 1_000_003, "test": 2_000_003}
"""Validation and test tasks are the same for every run, so that runs can be compared."""

LARGEST_CHUNK = 8
"""Tasks that are evaluated together at most."""
CHUNK_WORDS = 2**20
"""Input values of the tasks that are evaluated together, at most, where one task has fewer."""


@dataclass(frozen=True)
class Parts:
    """What a run works with; `config` holds the settings in force (a method may fix some of them)."""

    config: RunConfig
    spec: InputSpec
    network: Network
    method: Method


def assemble(config: RunConfig, spec: InputSpec) -> Parts:
    """Build network and method.

    Raises:
        ConfigError: the backbone cannot work on such images or be meta-trained, or the method not on it.
    """
    try:
        options = config.architecture.options
        module = build_backbone(config.backbone, spec.shape, config.task.ways, config.seed, options)
        network = Network(module, spec.shape)
    except ValueError as error:
        raise ConfigError(f"backbone: {config.backbone}: {error}") from None
    try:
        method = METHODS[config.method.name](network, config.method)
    except ValueError as error:
        raise ConfigError(f"method: {error}") from None
    in_force = replace(config.method, **method_settings(method.config))
    return Parts(replace(config, method=in_force), spec, network, method)


def load_split(data: DataConfig, split: str, spec: InputSpec | None = None) -> Dataset:
    """One split of a data set; `spec` is what a trained network expects (None: what the data set brings)."""
    if data.name != FOLDER:
        return load_dataset(data.name, split, data.root, spec)
    if data.root is None:
        raise ConfigError("data.root: which folder of images? Name it with --data DIR")
    return load_dataset(data.root, split, spec=spec or data.spec())


def training_sampler(config: RunConfig) -> EpisodeSampler:
    """Tasks of the training classes; they depend on the run's seed."""
    task = config.task
    return EpisodeSampler(
        load_split(config.data, "train"),
        ways=task.ways,
        shots=task.shots,
        queries=task.training_queries or task.queries,
        seed=config.seed,
        rotations=task.rotations,
        augmentation=task.augmentation,
    )


def fixed_sampler(dataset: Dataset, task: TaskConfig) -> EpisodeSampler:
    """The fixed tasks of a validation or test split."""
    return EpisodeSampler(
        dataset, ways=task.ways, shots=task.shots, queries=task.queries, seed=EVALUATION_SEEDS[dataset.split]
    )


def draw(sampler: EpisodeSampler, first: int, count: int) -> Batch:
    """Tasks first .. first+count-1 as tensors."""
    tasks = sampler.batch(first, count)
    return Batch(*map(torch.from_numpy, (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)))


def chunk_of(sampler: EpisodeSampler) -> int:
    """How many tasks to evaluate together: 8 small ones, fewer of large images, whose maps leave the cache."""
    samples = sampler.ways * (sampler.shots + sampler.queries)
    return max(1, min(LARGEST_CHUNK, CHUNK_WORDS // (samples * math.prod(sampler.dataset.spec.shape))))


def draw_all(sampler: EpisodeSampler, count: int, chunk: int | None = None) -> Iterator[Batch]:
    """Tasks 0 .. count-1, `chunk` at a time; None: as many as `chunk_of` says."""
    chunk = chunk or chunk_of(sampler)
    for first in range(0, count, chunk):
        yield draw(sampler, first, min(chunk, count - first))
