"""From a configuration to the objects of a run; what does not fit together fails here, before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..edge.inputs import ArraySpec, InputSpec, Spec
from .config import FOLDER, DataConfig, RunConfig, TaskConfig, method_settings
from .errors import ConfigError
from .inner.network import Network
from .losses import SQUARED_ERROR
from .models import build_backbone
from .models.own import build_own, import_backbone, is_import_path
from .outer import METHODS, Batch, Method
from .tasks import (
    Dataset,
    EpisodeSampler,
    Functions,
    FunctionSampler,
    TaskSampler,
    load_dataset,
    load_functions,
    loss_of,
)

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
    spec: Spec
    network: Network
    method: Method


def assemble(config: RunConfig, spec: Spec, outputs: int | None = None) -> Parts:
    """Build network and method.

    Args:
        config: the settings.
        spec: of a sample.
        outputs: of the network; None: one per class.

    Raises:
        ConfigError: the backbone cannot work on such samples or be meta-trained, or the method not on it.
    """
    outputs, root = outputs or config.task.ways, config.backbone_root
    try:
        if is_import_path(config.backbone):
            own = import_backbone(config.backbone, root)
            module, root = build_own(own, spec.shape, outputs, config.seed, config.architecture), own.root
        else:
            module = build_backbone(config.backbone, spec.shape, outputs, config.seed, config.architecture)
        network = Network(module, spec.shape, config.loss)
    except ValueError as error:
        raise ConfigError(f"backbone: {config.backbone}: {error}") from None
    try:
        method = METHODS[config.method.name](network, config.method)
    except ValueError as error:
        raise ConfigError(f"method.{error}") from None
    in_force = replace(config.method, **method_settings(method.config))
    return Parts(replace(config, method=in_force, backbone_root=root), spec, network, method)


def load_split(data: DataConfig, split: str, spec: Spec | None = None) -> Dataset | Functions:
    """One split of a data set; `spec` is what a trained network expects (None: what the data set brings).

    Raises:
        ConfigError: the data cannot be read, or are not what the network expects.
    """
    folder = None if data.root is None else Path(data.root)
    if loss_of(data.name) is SQUARED_ERROR:
        if isinstance(spec, InputSpec):
            raise ConfigError(f"data: {data.name} has arrays, but the run was trained on images")
        return load_functions(data.name, split, folder, spec, data.mean, data.std)
    if isinstance(spec, ArraySpec):
        raise ConfigError(f"data: {data.name} has images, but the run was trained on arrays")
    if data.name != FOLDER:
        return load_dataset(data.name, split, data.root, spec or data.spec(), data.disk_cache())
    if data.root is None:
        raise ConfigError("data.root: which folder of images? Name it with --data DIR")
    return load_dataset(data.root, split, spec=spec or data.spec(), cache=data.disk_cache())


def training_sampler(config: RunConfig) -> TaskSampler:
    """Tasks of the training split; they depend on the run's seed."""
    task, split = config.task, load_split(config.data, "train")
    shots, queries = task.training_shots or task.shots, task.training_queries or task.queries
    if isinstance(split, Functions):
        return FunctionSampler(split, shots=shots, queries=queries, seed=config.seed)
    return EpisodeSampler(
        split,
        ways=task.ways,
        shots=shots,
        queries=queries,
        seed=config.seed,
        rotations=task.rotations,
        augmentation=task.augmentation,
    )


def fixed_sampler(split: Dataset | Functions, task: TaskConfig) -> TaskSampler:
    """The fixed tasks of a validation or test split."""
    shots, queries, seed = task.shots, task.queries, EVALUATION_SEEDS[split.split]
    if isinstance(split, Functions):
        return FunctionSampler(split, shots=shots, queries=queries, seed=seed)
    return EpisodeSampler(split, ways=task.ways, shots=shots, queries=queries, seed=seed)


def draw(sampler: TaskSampler, first: int, count: int) -> Batch:
    """Tasks first .. first+count-1 as tensors."""
    tasks = sampler.batch(first, count)
    return Batch(*map(torch.from_numpy, (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)))


def chunk_of(sampler: TaskSampler) -> int:
    """How many tasks to evaluate together: 8 small ones, fewer of large images, whose maps leave the cache."""
    return max(1, min(LARGEST_CHUNK, CHUNK_WORDS // (sampler.samples * math.prod(sampler.spec.shape))))


def draw_all(sampler: TaskSampler, count: int, chunk: int | None = None) -> Iterator[Batch]:
    """Tasks 0 .. count-1, `chunk` at a time; None: as many as `chunk_of` says."""
    chunk = chunk or chunk_of(sampler)
    for first in range(0, count, chunk):
        yield draw(sampler, first, min(chunk, count - first))
