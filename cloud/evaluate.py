"""Score a finished run on the tasks of any data set that fits its input."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike

from tqdm import tqdm

from ..edge.inputs import InputSpec
from .config import FOLDER, DataConfig, known_datasets
from .errors import ConfigError
from .parts.assemble import EVALUATION_SEEDS, fixed_sampler, load_split
from .parts.score import Score
from .run.trained import FinishedRun, load_run
from .tasks import DECODED


def evaluate(
    run: FinishedRun | str | PathLike[str],
    data: str | None = None,
    *,
    tasks: int = 600,
    split: str = "test",
    batch: int | None = None,
    progress: bool = False,
) -> Score:
    """Adapt to fixed tasks exactly as the device does and score their queries.

    Args:
        run: a finished run, or its directory.
        data: `NAME=DIR` or `NAME`; None: the run's own data set. Images are preprocessed as in training.
        tasks: how many; the same number gives the same tasks for every run.
        split: "test" or "val".
        batch: support samples run at once, gradients accumulated (p-Meta, table 6): attention averages over them,
            BatchNorm has their statistics. None: attention per sample, statistics of the whole support set.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: no finished run, unknown data set, samples of another shape or kind, classes or
            tasks too small, or `batch` where it would have no effect.
    """
    trained = run if isinstance(run, FinishedRun) else load_run(run)
    if tasks < 2:
        raise ConfigError(f"tasks must be at least 2 (an interval needs two), got {tasks}")
    if batch is not None and batch < 1:
        raise ConfigError(f"batch must be at least 1, got {batch}")
    if split not in EVALUATION_SEEDS:
        raise ConfigError(f"split must be one of {', '.join(EVALUATION_SEEDS)}, got {split!r}")
    source = trained.config.data if data is None else _source(trained, data)
    sampler = fixed_sampler(load_split(source, split, trained.spec), trained.config.task)
    if sampler.outputs != trained.outputs:
        raise ConfigError(
            f"data: expected tasks of {trained.outputs} outputs, as in training, got {sampler.outputs}"
        )
    parts, meta = trained.parts, trained.meta
    with tqdm(total=tasks, unit="task", disable=not progress) as bar:
        score = parts.measure(meta, sampler, tasks, bar.update, batch)
    return replace(score, before=parts.before(meta, sampler, tasks))


def _source(trained: FinishedRun, text: str) -> DataConfig:
    """Read `NAME=DIR`; a folder's images are converted to what the run was trained on, through its disk cache."""
    name, _, root = text.partition("=")
    if name not in known_datasets():
        raise ConfigError(
            f"data: expected NAME=DIR with NAME one of {', '.join(known_datasets())}, got {text!r}"
        )
    spec, own = trained.spec, trained.config.data
    size, cache = (own.cache_size, own.cache) if name in (FOLDER, *DECODED) else (None, None)
    if name != FOLDER or not isinstance(spec, InputSpec):
        return DataConfig(name, root or None, cache_size=size, cache=cache)
    images = (spec.channels, spec.height, spec.mean, spec.std, spec.resize)
    return DataConfig(name, root or None, *images, size, cache)
