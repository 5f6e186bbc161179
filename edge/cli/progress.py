"""The progress bar of an adaptation, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from ..engines import Progress


class ProgressBar:
    """Shows gradient steps and samples; silent where stderr is no terminal."""

    def __init__(self) -> None:
        tqdm.monitor_interval = 0  # its thread would be counted as the run's memory
        self._bar = tqdm(unit="sample", disable=None, leave=False)
        self._step = -1

    def show(self, progress: Progress) -> None:
        """Draw how far the adaptation is; every gradient step at least once."""
        self._bar.total = progress.steps * progress.samples
        if progress.step != self._step:
            self._step = progress.step
            self._bar.set_description(f"step {progress.step + 1}/{progress.steps}")
        self._bar.update(progress.step * progress.samples + progress.samples_done - self._bar.n)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
