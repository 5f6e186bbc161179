"""Where a pre-training stands, and the files of its directory."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError
from ..files import PARTIAL, replace_bytes, replace_text
from ..settings.tables import flatten, write_toml
from ..settings.typed import to_table
from .settings import Pretraining

FORMAT = 1
NUMBERLESS = ("data.root",)
"""Settings that may change between the parts of a resumed run."""


@dataclass
class State:
    """Network and optimizer in place, steps done, losses of this epoch, one row per epoch, seconds so far."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Files:
    """config.toml, checkpoint.pt, metrics.csv, weights.safetensors and, written last, result.json."""

    path: Path

    @property
    def config(self) -> Path:
        """The settings, TOML."""
        return self.path / "config.toml"

    @property
    def checkpoint(self) -> Path:
        """What an interrupted run goes on from."""
        return self.path / "checkpoint.pt"

    @property
    def metrics(self) -> Path:
        """One row per epoch, CSV."""
        return self.path / "metrics.csv"

    @property
    def weights(self) -> Path:
        """The trained weights, without the classifier's."""
        return self.path / "weights.safetensors"

    @property
    def result(self) -> Path:
        """What was reached; a run without it is not finished."""
        return self.path / "result.json"

    def begin(self, settings: Pretraining, state: State) -> State:
        """Make the directory for a new run.

        Raises:
            ConfigError: it is not empty, or cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            own = {self.config.name, self.config.name + PARTIAL}
            if not {file.name for file in self.path.iterdir()} <= own:
                raise ConfigError(f"{self.path} is not empty: add --resume to go on, or choose another --out")
            replace_text(self.config, write_toml(to_table(settings)))
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be written to ({error.strerror}); choose another --out"
            ) from None
        return state

    def save(self, settings: Pretraining, state: State) -> None:
        """Write the checkpoint; it replaces an old one when complete."""
        content = {
            "format": FORMAT,
            "settings": to_table(settings),
            "module": state.module.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            **{name: getattr(state, name) for name in ("step", "losses", "history", "seconds")},
        }
        stream = io.BytesIO()
        torch.save(content, stream)
        replace_bytes(self.checkpoint, stream.getvalue())

    def resume(self, settings: Pretraining, state: State) -> State:
        """Put the checkpoint's content into a fresh state.

        Raises:
            ConfigError: nothing to resume, a damaged file, or settings that changed.
        """
        if not self.checkpoint.is_file():
            raise ConfigError(
                f"{self.checkpoint} does not exist: there is nothing to resume; leave --resume away"
            )
        try:
            found = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
            _refuse_other(self.path, settings, found["settings"])
            state.module.load_state_dict(found["module"])
            state.optimizer.load_state_dict(found["optimizer"])
            for name in ("step", "losses", "history", "seconds"):
                setattr(state, name, found[name])
        except (
            RuntimeError,
            pickle.UnpicklingError,
            EOFError,
            KeyError,
            TypeError,
            ValueError,
            OSError,
        ) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{self.checkpoint} is no checkpoint or is damaged ({type(error).__name__}); start again"
            ) from None
        return state

    def read_result(self) -> dict[str, Any]:
        """What `result.json` says."""
        found: dict[str, Any] = json.loads(self.result.read_text(encoding="utf-8"))
        return found


def _refuse_other(path: Path, settings: Pretraining, stored: dict[str, Any]) -> None:
    now, then = flatten(to_table(settings)), flatten(stored)
    for name in {**then, **now}:
        if name not in NUMBERLESS and now.get(name) != then.get(name):
            raise ConfigError(
                f"{path} was started with other settings, so it cannot be resumed: "
                f"{name}: {then.get(name)!r} -> {now.get(name)!r}"
            )
