"""Regression tasks: one split of a source of functions, and the episodes drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...edge.inputs import ArraySpec
from ..errors import ConfigError
from .episodes import EpisodeBatch, sample_settings

Samples = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Functions:
    """One split of a regression source: every task is a function of which some samples are seen.

    Attributes:
        name: as `data.name`.
        split: "train", "val" or "test".
        spec: shape and preprocessing of a sample.
        outputs: numbers in a target.
        draw: (generator, n) -> n samples of one task that the generator chooses: inputs float32 (n, *spec.shape),
            not preprocessed, and targets float32 (n, outputs).
        most: samples that every task has; None: any number.
    """

    name: str
    split: str
    spec: ArraySpec
    outputs: int
    draw: Callable[[np.random.Generator, int], Samples]
    most: int | None = None


class FunctionSampler:
    """Draws regression episodes, a pure function of (seed, index).

    Args:
        functions: the split.
        shots: support samples of a task.
        queries: query samples of a task, none of them in the support set.
        seed: with the episode's index, all that an episode depends on.

    Raises:
        ConfigError: a task of the split has fewer samples than that.
    """

    def __init__(self, functions: Functions, *, shots: int, queries: int, seed: int) -> None:
        if functions.most is not None and shots + queries > functions.most:
            raise ConfigError(
                f"{sample_settings(functions.split)}: {shots} + {queries} asked for, but a task of {functions.name} "
                f"{functions.split} has {functions.most} samples; ask for fewer, or make the tasks larger"
            )
        self.functions, self.shots, self.seed = functions, shots, seed
        self.spec, self.outputs, self.samples = functions.spec, functions.outputs, shots + queries

    def batch(self, first_index: int, count: int) -> EpisodeBatch:
        """Return episodes first_index .. first_index+count-1, stacked and preprocessed."""
        drawn = [self._draw(index) for index in range(first_index, first_index + count)]
        x = self.spec.preprocess(np.concatenate([inputs for inputs, _ in drawn]))
        x = x.reshape(count, self.samples, *self.spec.shape)
        y = np.stack([targets for _, targets in drawn])
        return EpisodeBatch(x[:, : self.shots], y[:, : self.shots], x[:, self.shots :], y[:, self.shots :])

    def _draw(self, index: int) -> Samples:
        return self.functions.draw(np.random.default_rng([self.seed, index]), self.samples)
