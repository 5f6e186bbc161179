"""Heads computed from the features of a support set, sample by sample, in the memory that the head itself takes.

Prototypes: Snell et al. 2017, eq. 8 (squared Euclidean distance as a linear head). CNAPs: Requeima et al. 2019,
sec. 2.2 (a linear head generated from every class mean). Simple CNAPs: Bateni et al. 2020, eq. 2 and 3 (Mahalanobis
distance with regularised covariances).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle.manifest import CNAPS
from ..bundle.streams import LINEAR, Streams
from .triangular import BLOCK, cholesky, invert_lower

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Generate = Callable[[Floats], Floats]
STRIP_ELEMENTS = 4096


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
        """What adaptation writes, by name; zero at first."""

    def add(self, label: int, vector: Floats) -> None:
        """Take in the features (width,) of one sample."""

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """Write the parameters of the first `used` classes.

        Args:
            used: classes in use; each has samples.
            workspace: as long as `finish_bytes` says.
            generate: what head.json makes of a class mean (width,): weight and bias (width + 1,).

        Raises:
            ValueError: a covariance is not finite.
        """


class LinearHead:
    """Prototypes: -|f - mu|^2 up to what is the same for all classes, weight 2 mu and bias -|mu|^2."""

    def __init__(self, streams: Streams, means: Means) -> None:
        weight, bias = streams.head.params
        self._means, self._weight, self._bias = means, *_zeros(streams)
        self.params = {weight: self._weight, bias: self._bias}

    def add(self, label: int, vector: Floats) -> None:
        """See `Head.add`."""
        self._means.add(label, vector)

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """See `Head.finish`."""
        for mean, weight, bias in zip(
            self._means.values[:used], self._weight, self._bias[:, None], strict=False
        ):
            weight[...] = 2 * mean
            bias[...] = -(mean @ mean)


class GeneratedHead(LinearHead):
    """CNAPs: weight and bias of every class are generated from its mean."""

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """See `Head.finish`."""
        for label in range(used):
            row = generate(self._means.values[label].astype(np.float32))
            self._weight[label], self._bias[label] = row[:-1], row[-1]


class MahalanobisHead:
    """Simple CNAPs: class means, and the inverse Cholesky factors of the regularised class covariances.

    While samples come in, the lower triangles of the factors hold sums of (f - mean)(f - mean)^T per class (Welford's
    update: nothing cancels).
    """

    def __init__(self, streams: Streams, means: Means) -> None:
        self._means, (self._centres, self._factors) = means, _zeros(streams)
        self.params = dict(zip(streams.head.params, (self._centres, self._factors), strict=True))

    def add(self, label: int, vector: Floats) -> None:
        """See `Head.add`."""
        away = self._means.add(label, vector)
        count = self._means.counts[label]
        _add_outer(self._factors[label], (away * math.sqrt((count - 1) / count)).astype(np.float32))

    def finish(self, used: int, workspace: NDArray[np.uint8], generate: Generate) -> None:
        """Q_c = r S_c + (1 - r) S + I with r = k_c / (k_c + 1), S_c = 0 of a single sample; see `Head.finish`."""
        means, counts = self._means.values[:used], self._means.counts[:used]
        width = means.shape[1]
        task, square, strip = _split(workspace, width)
        self._scatter(task, means, counts)
        task /= max(1, counts.sum() - 1)
        for label, count in enumerate(counts):
            share = count / (count + 1)
            np.multiply(self._factors[label], share / max(1, count - 1), out=square)
            for row, common in zip(square, task, strict=True):
                row += (1 - share) * common
            square.reshape(-1)[:: width + 1] += 1
            cholesky(square, strip)
            invert_lower(square, strip)
            self._factors[label], self._centres[label] = square, means[label]

    def _scatter(self, task: Floats, means: Doubles, counts: NDArray[np.int64]) -> None:
        """Write the lower triangle of the sum over all samples of (f - mean)(f - mean)^T around one mean."""
        centre = counts @ means / counts.sum()
        task[...] = 0
        for label, count in enumerate(counts):
            task += self._factors[label]
            _add_outer(task, (math.sqrt(count) * (means[label] - centre)).astype(np.float32))


def _add_outer(matrix: Floats, vector: Floats) -> None:
    """Add the outer product of a vector with itself, a few rows at a time; of what is above the diagonal only some."""
    rows = max(1, STRIP_ELEMENTS // len(vector))
    for start in range(0, len(vector), rows):
        end = min(start + rows, len(vector))
        matrix[start:end, :end] += np.outer(vector[start:end], vector[:end])


def _zeros(streams: Streams) -> tuple[Floats, Floats]:
    tensors = (streams.main.tensors[name] for name in streams.head.params)
    first, second = (np.zeros(tensor.concrete(1), np.float32) for tensor in tensors)
    return first, second


def finish_bytes(streams: Streams) -> int:
    """Return the workspace of `Head.finish`."""
    if streams.head.kind == LINEAR:
        return 0
    return streams.width * (12 * streams.width + 8 * BLOCK)


def _split(workspace: NDArray[np.uint8], width: int) -> tuple[Floats, Doubles, Doubles]:
    """Return task (width, width) float32, square (width, width) and strip (width, BLOCK) float64."""
    ends = np.cumsum([8 * width * width, 8 * width * BLOCK, 4 * width * width])
    square, strip = workspace[: ends[0]].view(np.float64), workspace[ends[0] : ends[1]].view(np.float64)
    task = workspace[ends[1] : ends[2]].view(np.float32)
    return task.reshape(width, width), square.reshape(width, width), strip.reshape(width, BLOCK)


def head_of(streams: Streams, means: Means) -> Head:
    """Return the head of a bundle, to be computed."""
    if streams.head.kind != LINEAR:
        return MahalanobisHead(streams, means)
    return (GeneratedHead if streams.kind == CNAPS else LinearHead)(streams, means)
