"""The run directory: which files there are, and how each is written (complete or not at all)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ..amortized import LEARNERS
from ..config import RunConfig, differences
from ..errors import ConfigError, TrainingError
from ..files import PARTIAL, read_text, replace_bytes, replace_text
from ..settings.tables import read_toml, write_toml
from ..settings.typed import to_table
from .state import State, load_checkpoint, readable, save_checkpoint


@dataclass(frozen=True)
class Directory:
    """What the directories of all trainings have.

    config.toml    the resolved configuration
    checkpoint.pt  the state that training resumes from
    metrics.csv    one row per validation
    result.json    what was reached; written last
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, TOML."""
        return self.path / "config.toml"

    @property
    def checkpoint(self) -> Path:
        """The state training resumes from."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """One row per validation, CSV."""
        return self.path / "metrics.csv"

    @property
    def result(self) -> Path:
        """What the run achieved, JSON; a run without it is not finished."""
        return self.path / "result.json"

    def begin(self, settings: object) -> None:
        """Make the directory for a new run.

        Raises:
            ConfigError: it holds more than a start that was cut short leaves, or cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            own = {self.config.name, *(file.name + PARTIAL for file in (self.config, self.checkpoint))}
            if {file.name for file in self.path.iterdir()} <= own:
                return replace_text(self.config, write_toml(to_table(settings)))
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written to ({error.strerror}); choose another --out"
            ) from None
        raise ConfigError(f"{self.path} is not empty: add --resume to go on, or choose another --out")

    def refuse_changes(self, then: object, now: object) -> None:
        """Raise ConfigError where settings that change numbers are no longer what a run was started with."""
        if changed := differences(then, now):
            raise ConfigError(
                f"{self.path} was started with other settings, so it cannot be resumed: {changed[0]}"
            )


@dataclass(frozen=True)
class RunDirectory(Directory):
    """Paths and writers of one meta-training, beside those of `Directory`.

    checkpoint.pt      the last validated (or interrupted) state
    model.safetensors  the kept meta-parameters: weights; of inner steps alpha (K, L) and attention, of learners without
                       them also frozen weights and statistics
    failed.txt         why training stopped for good; only of a run that did
    layers.json        of inner steps: the layer table with caps and benefits per step
    result.json        accuracy or mean squared error on validation and test tasks, seconds, versions
    *.png              learning_curve; of inner steps step_sizes
    """

    @property
    def model(self) -> Path:
        """The kept meta-parameters."""
        return self.path / "model.safetensors"

    @property
    def layers(self) -> Path:
        """The layer table, JSON."""
        return self.path / "layers.json"

    @property
    def failed(self) -> Path:
        """Why training stopped for good, one line; only of a run that did."""
        return self.path / "failed.txt"

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Write down a `TrainingError`, so that whoever finds the directory learns of it."""
        self.failed.unlink(missing_ok=True)
        try:
            yield
        except TrainingError as error:
            replace_text(self.failed, f"{error}\n")
            raise

    def resume(self, config: RunConfig) -> State:
        """The state of an interrupted run.

        Raises:
            ConfigError: nothing to resume, or the configuration changed since; the settings are named.
        """
        state, table = load_checkpoint(self.checkpoint)
        with readable(self.checkpoint):
            then = stored_config(table)
        self.refuse_changes(then, config)
        return state.to(config.train.device)

    def save(self, state: State, config: RunConfig) -> None:
        """Write checkpoint and metrics."""
        save_checkpoint(self.checkpoint, state, to_table(config))
        replace_text(self.metrics, to_csv(state.history))


def read_config(path: Path) -> RunConfig:
    """The configuration of a run directory.

    Raises:
        ConfigError: there is none, it is damaged, or the directory is that of a pre-training.
    """
    file = RunDirectory(path).config
    if not file.is_file():
        raise ConfigError(f"{path} is no run directory: {file.name} is missing")
    table = read_toml(read_text(file), str(file))
    if "epochs" in table and "method" not in table:
        weights = path / "weights.safetensors"
        raise ConfigError(
            f"{path} is a pre-training, not a run: meta-train a learner from its weights, --set train.initial_weights="
            f"{weights}"
        )
    return stored_config(table)


def stored_config(table: Mapping[str, Any]) -> RunConfig:
    """A configuration as a run has written it; learners of before `lite.control_variate` had no control variate."""
    config = RunConfig.from_table(table)
    if config.method.name in LEARNERS and "control_variate" not in table.get("lite", {}):
        return replace(config, lite=replace(config.lite, control_variate=False))
    return config


def replace_json(path: Path, content: Any) -> None:
    """Write JSON through a temporary sibling.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot say; nothing is written.
    """
    replace_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def replace_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file through a temporary sibling."""
    replace_bytes(path, save({name: value.detach().contiguous() for name, value in tensors.items()}))


def to_csv(rows: Sequence[Mapping[str, float]]) -> str:
    """Comma-separated text with a header; all rows have the first one's columns."""
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
