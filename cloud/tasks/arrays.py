"""The user's own regression tasks: a folder of .npz files, one task each, as the device reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...edge.errors import SupportError, UsageError
from ...edge.inputs import ArraySpec, SupportSet, Target, Targets, read_support
from ..errors import ConfigError
from .archives import read_archive
from .dataset import SPLITS
from .folder import split_names
from .functions import Functions, Samples

NAME, INPUTS, TARGETS = "arrays", "inputs", "targets"
Numbers = Sequence[float]


def load_arrays(
    folder: Path,
    split: str,
    spec: ArraySpec | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
) -> Functions:
    """Read one split of a folder of tasks.

    A file holds `inputs`, float32 (n, ...), and `targets`, float32 (n, outputs); n may differ between files,
    the shapes of a sample and a target may not. Files lie in train/, val/ and test/, or all in the folder
    itself: then they are shared out by the order of their names' sha256, 15 % val, 15 % test (at least one
    each), the rest train.

    Args:
        folder: where the files are.
        split: "train", "val" or "test".
        spec: what a trained network expects; None: the shape of the files with `mean` and `std`.
        mean: one number, or one per index of a sample's first axis; None: measured on the training files.
        std: the same, of the deviation.

    Raises:
        ConfigError: naming the folder, file or array at fault.
    """
    files = _files(folder)
    try:
        shape, outputs = _shapes(files["train"][0])
        spec = spec or _measured(files["train"], shape, outputs, mean, std)
        if spec.shape != shape:
            raise ConfigError(
                f"{NAME}: {folder} has samples of shape {shape}, but the network expects {spec.shape}"
            )
        tasks = _read(files[split], spec, outputs)
    except (SupportError, UsageError) as error:
        raise ConfigError(f"{NAME}: {error}") from None
    most = min(len(task) for task in tasks)
    return Functions(str(folder), split, spec, outputs, partial(_draw, tasks), most)


def _draw(tasks: Sequence[SupportSet], rng: np.random.Generator, samples: int) -> Samples:
    """Some samples of one task, without replacement."""
    task = tasks[int(rng.integers(len(tasks)))]
    rows = rng.choice(len(task), samples, replace=False)
    return task.images[rows].astype(np.float32, copy=False), task.given[TARGETS][rows]


def _files(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, sorted by name."""
    if not folder.is_dir():
        raise ConfigError(f"data.root: {folder} is no folder; expected one of .npz files, one file per task")
    if any((folder / split).is_dir() for split in SPLITS):
        found = {split: sorted((folder / split).glob("*.npz")) for split in SPLITS}
        if empty := [split for split in SPLITS if not found[split]]:
            raise ConfigError(f"{NAME}: {folder} has no .npz file in {empty[0]}/; every split needs a task")
        return found
    names = [path.name for path in folder.glob("*.npz")]
    shares = split_names(names, folder, "tasks (.npz files)")
    return {split: [folder / name for name in shares[split]] for split in SPLITS}


def _shapes(path: Path) -> tuple[tuple[int, ...], int]:
    """Shape of a sample and numbers in a target, from one file."""
    inputs, targets = read_archive(NAME, path, (INPUTS, TARGETS))
    if inputs.ndim < 2 or targets.ndim != 2:
        raise ConfigError(
            f"{NAME}: {path}: expected inputs (n, ...) and targets (n, outputs), got inputs {inputs.shape} and "
            f"targets {targets.shape}; single numbers have shape (n, 1)"
        )
    return inputs.shape[1:], targets.shape[1]


def _read(files: Sequence[Path], spec: ArraySpec, outputs: int) -> list[SupportSet]:
    answers = Targets((Target(TARGETS, (outputs,)),))
    return [read_support(path, spec, answers) for path in files]


def _measured(
    files: Sequence[Path], shape: tuple[int, ...], outputs: int, mean: Numbers | None, std: Numbers | None
) -> ArraySpec:
    """The files' own mean and deviation per index of the first axis, where none are given; 1 for a constant."""
    values = np.concatenate([task.images for task in _read(files, ArraySpec(shape), outputs)])
    rows: NDArray[Any] = np.moveaxis(values, 1, 0).reshape(shape[0], -1).astype(np.float64)
    spread = rows.std(1)
    return ArraySpec(
        shape,
        tuple(mean) if mean is not None else tuple(rows.mean(1).tolist()),
        tuple(std) if std is not None else tuple(np.where(spread > 0, spread, 1.0).tolist()),
    )
