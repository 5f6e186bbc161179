"""What a support set says about its samples: class labels, or the numbers another loss reads.

Errors begin with `where`, the file or "arrays"; headers are checked before any data are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import SupportError

Array: TypeAlias = NDArray[Any]
Header: TypeAlias = tuple[tuple[int, ...], np.dtype[Any]]
Given: TypeAlias = tuple[dict[str, Array], tuple[str, ...]]


class Answers(Protocol):
    """Which arrays accompany the samples of a support set, and how they are checked."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the arrays, which are those of the program's inputs."""

    def check_headers(self, where: str, samples: int, headers: Mapping[str, Header]) -> None:
        """Raise SupportError unless shapes and types fit the loss and the number of samples."""

    def read(self, where: str, arrays: Mapping[str, Array]) -> Given:
        """Return the loss's inputs by part, and the class names (none where there are no classes).

        Raises:
            SupportError: a value that cannot be, named.
        """

    def blank(self) -> Given:
        """Return what `read` returns for one sample of zeros."""


@dataclass(frozen=True)
class ClassLabels:
    """One class label per sample, integer or string; the sorted unique values are the classes.

    Attributes:
        most: outputs of the head; None: any number of classes.
    """

    most: int | None = None
    parts: tuple[str, ...] = ("labels",)

    def check_headers(self, where: str, samples: int, headers: Mapping[str, Header]) -> None:
        """See `Answers.check_headers`."""
        shape, dtype = headers["labels"]
        if dtype.kind not in "iuU":
            raise SupportError(f"{where}, labels: expected integers or strings, got {dtype}")
        if shape != (samples,):
            raise SupportError(f"{where}, labels: expected one per sample, shape ({samples},), got {shape}")

    def read(self, where: str, arrays: Mapping[str, Array]) -> Given:
        """See `Answers.read`: `labels` become int64 indices of the classes."""
        names, indices = np.unique(arrays["labels"], return_inverse=True)
        self.check_count(where, len(names))
        return {"labels": indices.astype(np.int64)}, tuple(str(name) for name in names)

    def check_count(self, where: str, classes: int) -> None:
        """Refuse fewer than two classes, and more than the head has outputs."""
        if classes < 2:
            raise SupportError(f"{where}: expected samples of at least 2 classes, got {classes}")
        if self.most is not None and classes > self.most:
            raise SupportError(f"{where}: {classes} classes, but the model's head has {self.most} outputs")

    def blank(self) -> Given:
        """See `Answers.blank`."""
        return {"labels": np.zeros(1, np.int64)}, ("",)


@dataclass(frozen=True)
class Target:
    """One array of numbers beside the samples.

    Attributes:
        name: of the array, and of the program's input.
        shape: of one sample.
        below: for integers (int64): they are 0 <= value < below; None: float32 numbers.
    """

    name: str
    shape: tuple[int, ...]
    below: int | None = None

    def check_header(self, where: str, samples: int, header: Header) -> None:
        """Raise SupportError unless shape and type fit."""
        shape, dtype = header
        fits = dtype == np.float32 if self.below is None else dtype.kind in "iu"
        if not fits or shape != (samples, *self.shape):
            kind = "float32 numbers" if self.below is None else "integers"
            raise SupportError(
                f"{where}, {self.name}: expected {kind} of shape {(samples, *self.shape)}, one entry per"
                f" sample, got {dtype} {shape}"
            )

    def checked(self, where: str, array: Array) -> Array:
        """Return the array as the program reads it; raises SupportError naming the first sample at fault."""
        for index, sample in enumerate(array):
            if fault := self._fault(sample):
                raise SupportError(f"{where}, {self.name}: sample {index} holds {fault}")
        return array if self.below is None else array.astype(np.int64, copy=False)

    def _fault(self, sample: Array) -> str | None:
        if self.below is None:
            return None if np.isfinite(sample).all() else "NaN or infinity; remove or repair it"
        inside = sample.min() >= 0 and sample.max() < self.below
        return None if inside else f"a value outside 0 to {self.below - 1}"


@dataclass(frozen=True)
class Targets:
    """Arrays of numbers beside the samples: targets of a regression, actions and advantages of a policy."""

    targets: tuple[Target, ...]

    @property
    def parts(self) -> tuple[str, ...]:
        """See `Answers.parts`."""
        return tuple(target.name for target in self.targets)

    def check_headers(self, where: str, samples: int, headers: Mapping[str, Header]) -> None:
        """See `Answers.check_headers`."""
        for target in self.targets:
            target.check_header(where, samples, headers[target.name])

    def read(self, where: str, arrays: Mapping[str, Array]) -> Given:
        """See `Answers.read`."""
        return {target.name: target.checked(where, arrays[target.name]) for target in self.targets}, ()

    def blank(self) -> Given:
        """See `Answers.blank`."""
        dtypes = {target.name: np.float32 if target.below is None else np.int64 for target in self.targets}
        return {t.name: np.zeros((1, *t.shape), dtypes[t.name]) for t in self.targets}, ()
