"""From a configuration to the objects of a run; what does not fit together fails here, before training."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from torch import nn

from ...edge.inputs import ArraySpec, InputSpec, Spec
from ..amortized import LEARNERS
from ..config import FOLDER, DataConfig, RunConfig, TaskConfig, method_settings
from ..errors import ConfigError
from ..inner.network import Network
from ..lite import check_size
from ..losses import SQUARED_ERROR
from ..models import build_backbone
from ..models.own import build_own, check_gradient, import_backbone, is_import_path
from ..models.timm_models import build_timm, is_timm
from ..outer import METHODS
from ..tasks import (
    Dataset,
    EpisodeSampler,
    Functions,
    FunctionSampler,
    TaskSampler,
    load_dataset,
    load_functions,
    loss_of,
)
from .batches import chunk_of, draw, draw_all
from .gradient import GradientParts
from .learner import LearnerParts

__all__ = [
    "EVALUATION_SEEDS",
    "assemble",
    "chunk_of",
    "draw",
    "draw_all",
    "fixed_sampler",
    "load_split",
    "parts_of",
    "training_sampler",
]

EVALUATION_SEEDS = {"val": 1_000_003, "test": 2_000_003}
"""Validation and test tasks are the same for every run, so that runs can be compared."""


def parts_of(config: RunConfig, spec: Spec, outputs: int | None = None) -> GradientParts | LearnerParts:
    """Build what a run trains, whatever its method is; see `assemble`."""
    if config.method.name in LEARNERS:
        return assemble_learner(config, spec)
    return assemble(config, spec, outputs)


def assemble(config: RunConfig, spec: Spec, outputs: int | None = None) -> GradientParts:
    """Build network and method.

    Args:
        config: the settings.
        spec: of a sample.
        outputs: of the network; None: one per class.

    Raises:
        ConfigError: the backbone cannot work on such samples or be meta-trained, or the method not on it.
    """
    module, root = _backbone(config, spec, outputs or config.task.ways)
    try:
        network = Network(module, spec.shape, config.loss)
        if is_import_path(config.backbone):
            check_gradient(module, spec.shape)
    except ValueError as error:
        raise ConfigError(f"backbone: {config.backbone}: {error}") from None
    try:
        _check_subset(config)
        method = METHODS[config.method.name](network, config.method, config.lite)
    except ValueError as error:
        raise ConfigError(_named(config, error)) from None
    in_force = replace(config.method, **method_settings(method.config))
    return GradientParts(replace(config, method=in_force, backbone_root=root), spec, network, method)


def assemble_learner(config: RunConfig, spec: Spec) -> LearnerParts:
    """Build backbone and learner.

    Raises:
        ConfigError: the samples are no images, the backbone has no features to learn from, or a setting would
            have no effect.
    """
    name = config.method.name
    if not isinstance(spec, InputSpec) or config.loss is SQUARED_ERROR:
        raise ConfigError(f"method.name: {name} classifies images, {config.data.name} has none")
    module, root = _backbone(config, spec, config.task.ways)
    try:
        _check_subset(config)
        return LearnerParts.of(replace(config, backbone_root=root), spec, module)
    except ValueError as error:
        raise ConfigError(_named(config, error)) from None


def _backbone(config: RunConfig, spec: Spec, outputs: int) -> tuple[nn.Module, str | None]:
    """The module, and the directory that it was imported from."""
    name, seed, options, root = config.backbone, config.seed, config.architecture, config.backbone_root
    try:
        if is_timm(name):
            return build_timm(name, spec.shape, outputs, seed, options), root
        if not is_import_path(name):
            return build_backbone(name, spec.shape, outputs, seed, options), root
        own = import_backbone(name, root)
        return build_own(own, spec.shape, outputs, seed, options), own.root
    except ValueError as error:
        raise ConfigError(f"backbone: {name}: {error}") from None


def _check_subset(config: RunConfig) -> None:
    """Raise ValueError where H is larger than the support set of a meta-training task, or asked for and not there."""
    lite, task = config.lite, config.task
    if lite.h is not None:
        return check_size(task.ways * (task.training_shots or task.shots), lite.h)
    for name in ("stratified", "control_variate"):
        if getattr(lite, name):
            raise ValueError(f"lite.{name}: true would have no effect, it needs lite.h")
    return None


def _named(config: RunConfig, error: ValueError) -> str:
    """What a method or learner refuses, beginning with the setting that it is about."""
    first = re.split(r"[:. ]", str(error), maxsplit=1)[0]
    if first in method_settings(config.method):
        return f"method.{error}"
    return str(error) if first == "lite" else f"backbone: {config.backbone}: {error}"


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
