"""What a network expects of a sample that is no image: a motion window, a spectrogram, a feature vector."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UsageError
from .spec import is_count, spec_fields


@dataclass(frozen=True)
class ArraySpec:
    """Shape and exact preprocessing of an array input; the manifest's `input` object of kind "array".

    Attributes:
        shape: of one float32 sample, any rank from 1: (channels, length), (features,), (1, bands, frames).
        mean: subtracted from a sample: one number, or one per index of the first axis.
        std: what the difference is divided by: one positive number, or one per index of the first axis.

    Raises:
        UsageError: a field that cannot mean anything, named.
    """

    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    kind: ClassVar[str] = "array"
    advice: ClassVar[str] = "save them as float32 in this shape"

    def __post_init__(self) -> None:
        extents = tuple(self.shape) if isinstance(self.shape, (list, tuple)) else ()
        if not extents or not all(map(is_count, extents)):
            raise UsageError(f"input.shape: expected one or more positive integers, got {self.shape!r}")
        object.__setattr__(self, "shape", extents)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), extents[0]))
        if min(self.std) <= 0:
            raise UsageError(f"input.std: expected positive numbers, got {list(self.std)}")

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one sample as a support set keeps it: that of the network's input."""
        return self.shape

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type of a sample as a support set keeps it, float32."""
        return np.dtype(np.float32)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one stored sample."""
        return 4 * math.prod(self.shape)

    @property
    def expected(self) -> str:
        """What an array of samples must be, for error messages."""
        return f"float32 values (n, {', '.join(map(str, self.shape))})"

    def accepts(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Tell whether samples of this type and shape fit."""
        return dtype == np.float32 and shape == self.shape

    def write(self, samples: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Write samples as network inputs into `out`."""
        self.preprocess(samples, out)

    def preprocess(
        self, samples: NDArray[np.float32], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Compute (value - mean)/std in float32.

        Args:
            samples: float32 (n, *shape).
            out: float32 (n, *shape) to write into; allocated when None. No other array is made.

        Returns:
            `out`.

        Raises:
            ValueError: an array of another type or shape (a caller's mistake: data are checked when read).
        """
        if out is None:
            out = np.empty((len(samples), *self.shape), np.float32)
        for name, array in (("samples", samples), ("out", out)):
            if array.dtype != np.float32 or array.shape != (len(samples), *self.shape):
                raise ValueError(
                    f"{name}: expected float32 {(len(samples), *self.shape)}, got {array.dtype} {array.shape}"
                )
        np.subtract(samples, self._along_first_axis(self.mean), out=out)
        return np.divide(out, self._along_first_axis(self.std), out=out)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back to an equal spec."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "mean": list(self.mean),
            "std": list(self.std),
            "source_dtype": "float32",
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArraySpec:
        """Read a manifest's `input` object; raises BundleError naming the field that is missing or wrong."""
        values = spec_fields(data, cls.kind, "float32", {field.name for field in fields(cls)})
        try:
            return cls(**values)
        except UsageError as error:
            raise BundleError(f"manifest {error}") from None

    def _along_first_axis(self, numbers: tuple[float, ...]) -> NDArray[np.float32]:
        return np.array(numbers, np.float32).reshape(1, -1, *[1] * (len(self.shape) - 1))


def _numbers(name: str, values: object, extent: int) -> tuple[float, ...]:
    """Return one number, or one per index of the first axis, as a tuple of floats."""
    listed = list(values) if isinstance(values, (list, tuple)) else [values]
    numbers = [v for v in listed if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(listed) not in (1, extent) or len(numbers) != len(listed):
        raise UsageError(f"input.{name}: expected one finite number, or {extent} of them, got {values!r}")
    return tuple(float(value) for value in numbers)
