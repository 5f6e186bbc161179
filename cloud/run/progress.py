"""What a person sees of training: a bar with loss, accuracy and active layers, a line per validation."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

from ..errors import TrainingWarning
from ..losses import CROSS_ENTROPY, Loss
from .state import State

FIRST_GUESS_AFTER = 5
UNSOLVED = 0.1
"""Mean residual of the lower level above which an implicit gradient is not to be trusted."""
LONGEST_FIXED = 1e4
"""Losses from here on are shown with an exponent."""


class Progress:
    """A progress bar on stderr, or warnings alone; it never touches what is computed."""

    def __init__(self, total: int, start: int, shown: bool, loss: Loss = CROSS_ENTROPY) -> None:
        interval = 0.5 if sys.stderr.isatty() else 15.0
        self._bar = tqdm(
            total=total, initial=start, unit="step", disable=not shown, file=sys.stderr, dynamic_ncols=True,
            mininterval=interval,
        )  # fmt: skip
        self._start, self._loss, self._warned = start, loss, False

    def step(self, state: State) -> None:
        """Show the state after one outer step."""
        self._bar.set_postfix(self._shown(state.pending[-1]), refresh=False)
        self._bar.update(1)
        elapsed = float(self._bar.format_dict["elapsed"])
        if state.step - self._start == FIRST_GUESS_AFTER:
            left = elapsed / FIRST_GUESS_AFTER * (self._bar.total - state.step)
            self.note(f"about {minutes(left)} for {self._bar.total - state.step} more steps, plus validation")

    def validated(self, row: Mapping[str, float]) -> None:
        """Show one row of the metrics."""
        self.note(
            f"step {row['step']:.0f}: validation {self._loss.words} "
            f"{row[f'validation_{self._loss.metric}']:.4f} "
            f"± {row['validation_ci95']:.4f}{_active(row)}"
        )
        if (residual := row.get("lower_residual", 0.0)) > UNSOLVED:
            self._warn_unsolved(int(row["step"]), residual)

    def _warn_unsolved(self, step: int, residual: float) -> None:
        """Once as a Python warning; above the bar, at every validation that it is true of."""
        if self._bar.disable and self._warned:
            return
        self._warned = True
        self.warn(
            f"step {step}: the inner problem is not solved (lower_residual {residual:.2f}, want {UNSOLVED:g}), so the "
            "outer gradient is inexact. Where it stays near 1 or swings, the inner steps are too large: lower "
            "method.inner_step_size. Where it falls but stays above, they are too few: raise method.inner_steps, or "
            "method.mu (MRML) or method.prox (iMAML)"
        )

    def warn(self, text: str) -> None:
        """Say that something is wrong: above the bar, or, where none is shown, as a `TrainingWarning`."""
        if self._bar.disable:
            warnings.warn(text, TrainingWarning, stacklevel=2)
        else:
            self.note(f"warning: {text}")

    def note(self, text: str) -> None:
        """Show one line above the bar."""
        if not self._bar.disable:
            self._bar.write(text, file=sys.stderr)

    def _shown(self, metrics: Mapping[str, float]) -> dict[str, str]:
        name = self._loss.metric
        shown = {"loss": short(metrics["query_loss"]), name: short(metrics[f"query_{name}"])}
        return shown | ({"active layers": f"{active:.0f}"} if (active := metrics["active_layers"]) else {})

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def _active(row: Mapping[str, float]) -> str:
    """What a method with inner steps updates."""
    if "active_layers" not in row:
        return ""
    zero = row["zero_step_sizes"]
    return f", {row['active_layers']:.0f} layers active, {zero:.0%} of the step sizes zero"


def short(value: float) -> str:
    """A loss or an accuracy in few characters: `1.250`, `2.37e+35`."""
    return f"{value:.3f}" if abs(value) < LONGEST_FIXED else f"{value:.3g}"


def minutes(seconds: float) -> str:
    """A duration as people say it: `40 s`, `3.5 min`."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min"
