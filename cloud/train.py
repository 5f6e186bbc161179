"""Meta-train from a recipe to a run directory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from ..edge.errors import UsageError
from ..edge.units import format_bytes, parse_bytes
from .config import RunConfig
from .errors import ConfigError
from .memory.budget import CHOSEN, as_chosen, fit_into
from .parts.assemble import fixed_sampler, load_split, parts_of, training_sampler
from .parts.base import Parts
from .recipes import read_recipe, stated_in
from .run.directory import RunDirectory, read_config
from .run.finish import finish
from .run.loop import Job, begin, run
from .run.progress import Progress
from .run.trained import AmortizedRun, TrainedRun, load_run
from .settings.tables import literal


def train(
    recipe: str,
    out: str | PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    data: str | PathLike[str] | None = None,
    memory_budget: str | int | None = None,
    resume: bool = False,
    progress: bool = False,
) -> TrainedRun | AmortizedRun:
    """Meta-train, and leave a run directory behind.

    Args:
        recipe: a recipe's name (`meta-train list`), or the path of a .toml file.
        out: the run directory; must not exist or be empty, unless resuming.
        overrides: settings to change, e.g. {"train.outer_steps": 500, "method.rho_fw": 0.5}.
        data: the folder of images, or the directory that holds the data set's file (`data.root`).
        memory_budget: choose lite.h, lite.query_batch and lite.chunk so that training stays within so much memory
            of the process, or of the GPU, such as "2GB"; what was chosen is part of the run's configuration, and
            is taken from there when resuming.
        resume: go on from the checkpoint in `out`; with one CPU thread the numbers are bit for bit those of
            an uninterrupted run on the same machine, with more they are up to the rounding of parallel sums.
        progress: show a progress bar on stderr, and what a memory budget led to.

    Raises:
        ConfigError: a setting that is unknown, out of range, fixed by the method, without effect, or does not
            fit the data.
        TrainingError: the loss is no longer a number (the last good checkpoint is kept), or no validated
            state met the method's constraint.
        KeyboardInterrupt: after the state was saved.
    """
    changes = dict(overrides or {}) | ({} if data is None else {"data.root": str(data)})
    config = RunConfig.from_table(read_recipe(recipe), changes)
    if config.train.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('train.device: "cuda" is not available here, torch sees no GPU; set it to "cpu"')
    if memory_budget is not None:
        config = _within(config, memory_budget, Path(out), resume, progress)
    training = training_sampler(config)
    validation = fixed_sampler(load_split(config.data, "val"), config.task)
    test = fixed_sampler(load_split(config.data, "test"), config.task)
    parts = parts_of(config, training.spec, training.outputs)
    stated = _stated(recipe, changes)
    if memory_budget is not None:  # which took what [lite] says for limits
        stated = [name for name in stated if name not in CHOSEN]
    _refuse_ignored(config, parts, stated)
    job = Job(parts, training, validation, RunDirectory(Path(out)))
    state = job.directory.resume(parts.config) if resume else begin(job)
    if not job.directory.result.exists():
        shows = Progress(parts.config.train.outer_steps, state.step, progress, parts.loss)
        with job.directory.noting_failure(), shows as shown:
            finish(job, run(job, state, shown), test, shown)
    return load_run(out)


def _within(config: RunConfig, budget: str | int, out: Path, resume: bool, tell: bool) -> RunConfig:
    """The configuration with settings that fit into a memory budget, or those that were found to before."""
    try:
        size = parse_bytes(budget)
    except UsageError as error:
        raise ConfigError(f"memory budget: {error}") from None
    if resume:
        return replace(config, lite=as_chosen(config.lite, read_config(out).lite))
    if tell:
        print(f"memory budget {format_bytes(size)}: taking first steps to see what fits", file=sys.stderr)
    fit = fit_into(config, size)
    if tell:
        print(fit.text, file=sys.stderr)
    return replace(config, lite=fit.lite)


def _stated(recipe: str, changes: Iterable[str]) -> list[str]:
    """Names of settings that were asked for: the changes, and what a recipe says that they have not overruled."""
    changes = list(changes)
    switched = any(name.startswith(("method.", "lite.")) for name in changes)
    return changes if switched else [*changes, *stated_in(recipe)]


def _refuse_ignored(asked: RunConfig, parts: Parts, stated: Iterable[str]) -> None:
    """A setting of [method] or [lite] that was asked for must be in force."""
    idle = parts.idle()
    for name in stated:
        section, _, key = name.partition(".")
        if section not in ("method", "lite"):
            continue
        wanted, in_force = getattr(asked, section), getattr(parts.config, section)
        value, used = getattr(wanted, key), getattr(in_force, key)
        (usual,) = (setting.default for setting in fields(wanted) if setting.name == key)
        ignored = f"{literal(value)} would have no effect"
        if value != used:
            raise ConfigError(f"{name}: {asked.method.name} fixes it to {literal(used)}, so {ignored}")
        if name in idle and value != usual:
            raise ConfigError(f"{name}: {ignored}, it needs {idle[name]}")
