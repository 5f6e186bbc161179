"""Meta-train a backbone on many small tasks: `train` from a recipe, `evaluate`, `load_run` for export."""

from __future__ import annotations

from .errors import ConfigError
from .evaluate import evaluate
from .train import train
from .trained_run import AmortizedRun, TrainedRun, load_run

__all__ = ["AmortizedRun", "ConfigError", "TrainedRun", "evaluate", "load_run", "train"]
