"""Meta-train a backbone on many small tasks: `train` from a recipe, `evaluate`, `load_run` for export."""

from __future__ import annotations

from ..edge.starting import quit_on_interrupt

quit_on_interrupt()  # before torch is imported

from .errors import ConfigError  # noqa: E402
from .evaluate import evaluate  # noqa: E402
from .run.trained import AmortizedRun, TrainedRun, load_run  # noqa: E402
from .train import train  # noqa: E402

__all__ = ["AmortizedRun", "ConfigError", "TrainedRun", "evaluate", "load_run", "train"]
