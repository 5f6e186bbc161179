"""Heads computed from the features of a support set, sample by sample, in the memory that the head itself takes.

Prototypes: Snell et al. 2017, eq. 8 (squared Euclidean distance as a linear head). CNAPs: Requeima et al. 2019,
sec. 2.2 (a linear head generated from every class mean). Simple CNAPs: Bateni et al. 2020, eq. 2 and 3 (Mahalanobis
distance with regularised covariances).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import CNAPS
from ..bundle.streams import LINEAR, Streams
from .packed import Doubles, add_outer, add_unpacked, packed_elements
from .triangular import BLOCK, cholesky, invert_lower

Floats = NDArray[np.float32]
Generate = Callable[[Floats], Floats]
UNUSED = np.float32(-1e37)
"""The logit of an output without a class: the lowest, also where nothing masks it, and finite."""
AFAR = np.sqrt(-UNUSED)
SINGLE, DOUBLE = (float(np.finfo(kind).eps) for kind in (np.float32, np.float64))
LEAST_UNIT, MOST_SPACING = 1e-4, 4.0


class Means:
    """The class means, kept up to date sample by sample in float64.

    Attributes:
        values: (classes, width); rows of classes without samples are 0.
        counts: samples of every class so far, int64 (classes,).
    """

    def __init__(self, memory: Doubles) -> None:
        self.values = memory
        self.values[...] = 0
        self.counts = np.zeros(len(memory), np.int64)

    def add(self, label: int, vector: Floats) -> Doubles:
        """Take in one sample; return how far it is from its class's mean before."""
        away: Doubles = vector - self.values[label]
        self.counts[label] += 1
        self.values[label] += away / self.counts[label]
        return away


class Head(Protocol):
    """A head in the making."""

    @property
    def params(self) -> Mapping[str, Floats]:
        """What adaptation writes, by name."""

    def add(self, label: int, vector: Floats) -> None:
        """Take in the features (width,) of one sample."""

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """Write the parameters of the first `used` classes, and others that make all other outputs `UNUSED`.

        Args:
            used: classes in use; each has samples.
            workspace: as long as `finish_bytes` says.
            generate: what head.json makes of a class mean (width,): weight and bias (width + 1,).

        Raises:
            ValueError: a covariance is not finite, or too large for the 1 that is added to it.
        """


class LinearHead:
    """Prototypes: -|f - mu|^2 up to what is the same for all classes.

    With m the mean of all mu: weight 2 (mu - m), bias -(mu - m)(mu + m), so that nothing is lost of what features
    far from 0 differ by.
    """

    def __init__(self, streams: Streams, means: Means) -> None:
        weight, bias = streams.head.params
        tensors = (streams.main.tensors[name].concrete(1) for name in (weight, bias))
        self._means, (self._weight, self._bias) = means, (np.zeros(shape, np.float32) for shape in tensors)
        self.params = {weight: self._weight, bias: self._bias}

    def add(self, label: int, vector: Floats) -> None:
        """See `Head.add`."""
        self._means.add(label, vector)

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """See `Head.finish`."""
        centre = self._means.values[:used].mean(0)
        for label, mean in enumerate(self._means.values[:used]):
            away = mean - centre
            self._weight[label], self._bias[label] = 2 * away, -(away @ (mean + centre))
        self._bias[used:] = UNUSED


class GeneratedHead(LinearHead):
    """CNAPs: weight and bias of every class are generated from its mean."""

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """See `Head.finish`."""
        for label in range(used):
            row = generate(self._means.values[label].astype(np.float32))
            self._weight[label], self._bias[label] = row[:-1], row[-1]
        self._bias[used:] = UNUSED


class MahalanobisHead:
    """Simple CNAPs: class means, and the inverse Cholesky factors of the regularised class covariances.

    While samples come in, the memory of both holds, in float64 and packed, the lower triangle of the sum of
    (f - mean)(f - mean)^T of every class (Welford's update: nothing cancels); they take exactly as many bytes. With
    fewer samples than features only the I that is added decides distances: sums in float32 would swamp it.
    """

    def __init__(self, streams: Streams, means: Means) -> None:
        centres, factors = (streams.main.tensors[name].concrete(1) for name in streams.head.params)
        self._memory = np.zeros(prod(centres) + prod(factors), np.float32)
        self._factors = self._memory[: prod(factors)].reshape(factors)
        self._centres = self._memory[prod(factors) :].reshape(centres)
        self._means, self._sums = means, self._memory.view(np.float64).reshape(len(means.values), -1)
        self.params = dict(zip(streams.head.params, (self._centres, self._factors), strict=True))

    def add(self, label: int, vector: Floats) -> None:
        """See `Head.add`."""
        away = self._means.add(label, vector)
        count = self._means.counts[label]
        add_outer(self._sums[label], away * math.sqrt((count - 1) / count))

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """Q_c = r S_c + (1 - r) S + I with r = k_c / (k_c + 1), S_c = 0 of a single sample; see `Head.finish`."""
        means, counts = self._means.values[:used], self._means.counts[:used]
        width = means.shape[1]
        square, strip, task = _split(workspace, width)
        self._scatter(task, means, counts)
        task /= max(1, counts.sum() - 1)
        for label, count in enumerate(counts):
            share = count / (count + 1)
            square[...] = 0
            add_unpacked(square, self._sums[label], share / max(1, count - 1))
            add_unpacked(square, task, 1 - share)
            _add_unit(square, int(counts.sum()))
            cholesky(square, strip)
            invert_lower(square, strip)
            self._factors[label] = square  # ends before the sums of the next class begin
        self._memory[used * width * width : used * width * (width + 1)] = 0
        self._centres[:used], self._centres[used:, 0], self._factors[used:, 0, 0] = means, AFAR, 1

    def _scatter(self, task: Doubles, means: Doubles, counts: NDArray[np.int64]) -> None:
        """Write the packed sum over all samples of (f - mean)(f - mean)^T around one mean."""
        centre = counts @ means / counts.sum()
        task[...] = 0
        for label, count in enumerate(counts):
            task += self._sums[label]
            add_outer(task, math.sqrt(count) * (means[label] - centre))


def _add_unit(square: Doubles, samples: int) -> None:
    """Add 1 to the diagonal of a covariance; raises ValueError where rounding would leave little of it.

    Where there are fewer samples than features, a new sample is expected to lie as far outside of what they span as
    the trace says, per feature that is missing; that distance has to be a float32 beside which 1 is something.
    """
    width = len(square)
    diagonal = square.reshape(-1)[:: width + 1]
    trace = float(diagonal.sum())
    spacing = SINGLE * trace * max(0, width - samples + 1) / width
    if not (DOUBLE * trace < LEAST_UNIT and spacing < MOST_SPACING):
        raise ValueError(
            f"the covariance of a class has trace {trace:.3g}, with {samples} samples of {width} features: beside"
            " it rounding swamps the 1 that is added"
        )
    diagonal += 1


def finish_bytes(streams: Streams) -> int:
    """Return the workspace of `Head.finish`."""
    if streams.head.kind == LINEAR:
        return 0
    width = streams.width
    return 8 * (width * width + width * BLOCK + packed_elements(width))


def _split(workspace: NDArray[np.uint8], width: int) -> tuple[Doubles, Doubles, Doubles]:
    """Return square (width, width), strip (width, BLOCK) and a packed triangle."""
    square, strip, task = np.split(workspace.view(np.float64), np.cumsum([width * width, width * BLOCK]))
    return square.reshape(width, width), strip.reshape(width, BLOCK), task


def head_of(streams: Streams, means: Means) -> Head:
    """Return the head of a bundle, to be computed."""
    if streams.head.kind != LINEAR:
        return MahalanobisHead(streams, means)
    return (GeneratedHead if streams.kind == CNAPS else LinearHead)(streams, means)
