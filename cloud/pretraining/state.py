"""Where a pre-training stands, and the files of its directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import read_json, table_with
from ..run.directory import Directory
from ..run.state import read_checkpoint, readable, write_checkpoint
from ..settings.typed import to_table
from .settings import Pretraining

FORMAT = 1
PLAIN = ("step", "losses", "history", "seconds")
"""What a checkpoint holds of a state beside its tensors."""


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
class Files(Directory):
    """Of a pre-training, beside those of `Directory`: weights.safetensors."""

    @property
    def weights(self) -> Path:
        """The trained weights, without the classifier's."""
        return self.path / "weights.safetensors"

    def save(self, settings: Pretraining, state: State) -> None:
        """Write the checkpoint; it replaces an old one when complete."""
        content = {
            "format": FORMAT,
            "settings": to_table(settings),
            "module": state.module.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            **{name: getattr(state, name) for name in PLAIN},
        }
        write_checkpoint(self.checkpoint, content)

    def resume(self, settings: Pretraining, state: State) -> None:
        """Put the checkpoint's content into a fresh state.

        Raises:
            ConfigError: nothing to resume, a damaged file, or settings that changed.
        """
        found = read_checkpoint(self.checkpoint, FORMAT)
        with readable(self.checkpoint):
            self.refuse_changes(Pretraining.from_table(found["settings"]), settings)
            state.module.load_state_dict(found["module"])
            state.optimizer.load_state_dict(found["optimizer"])
            for name in PLAIN:
                setattr(state, name, found[name])

    def read_result(self) -> dict[str, Any]:
        """What `result.json` says."""
        return table_with(self.result, read_json(self.result), ("held_out_accuracy", "seconds"))
