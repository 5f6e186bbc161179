"""Meta-train a backbone on many small tasks: `train` from a recipe, `evaluate`, `load_run` for export."""

from __future__ import annotations

from .errors import ConfigError
from .evaluate import evaluate
from .run.trained import AmortizedRun, TrainedRun, load_run
from .train import train

__all__ = ["AmortizedRun", "ConfigError", "TrainedRun", "evaluate", "load_run", "train"]
