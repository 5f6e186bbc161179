"""What a network expects of an image, and the one function that turns stored pixels into its input.

The cloud trains with `InputSpec.preprocess` and the device runs it too, so the two cannot drift apart.
Polarity is part of the pixels: nothing guesses whether ink is dark or light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, UsageError

RESIZE_RULES = ("box", "bilinear")


@dataclass(frozen=True)
class InputSpec:
    """Shape and exact preprocessing of an image input; the manifest's `input` object.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        height: pixels.
        width: pixels.
        mean: per channel, on the scale value/255.
        std: per channel, on the scale value/255; positive.
        resize: Pillow filter for image files of another size: "box" (area average) or "bilinear" (triangle,
            which Pillow widens by the reduction factor). The aspect ratio is not kept.

    Raises:
        UsageError: a field that cannot mean anything, named.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Literal["box", "bilinear"] = "box"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UsageError(f"input.channels: expected 1 (grey) or 3 (RGB), got {self.channels!r}")
        for name in ("height", "width"):
            if not _is_count(getattr(self, name)):
                raise UsageError(f"input.{name}: expected a positive integer, got {getattr(self, name)!r}")
        if self.resize not in RESIZE_RULES:
            raise UsageError(f"input.resize: expected one of {', '.join(RESIZE_RULES)}, got {self.resize!r}")
        for name in ("mean", "std"):
            object.__setattr__(self, name, _per_channel(name, getattr(self, name), self.channels))
        if min(self.std) <= 0:
            raise UsageError(f"input.std: expected positive numbers, got {list(self.std)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one preprocessed sample, (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def pixel_shape(self) -> tuple[int, int, int]:
        """Shape of one stored uint8 sample, (height, width, channels)."""
        return self.height, self.width, self.channels

    def preprocess(
        self, images: NDArray[np.uint8], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Compute (value/255 - mean)/std in float32, channels first.

        Args:
            images: uint8 (n, height, width, channels).
            out: float32 (n, channels, height, width) to write into; allocated when None. No other array is
                made, so an engine can fill its arena with no hidden temporary.

        Returns:
            `out`.

        Raises:
            ValueError: an array of another type or shape (a caller's mistake: data are checked when read).
        """
        if out is None:
            out = np.empty((len(images), *self.shape), np.float32)
        if images.dtype != np.uint8 or images.shape[1:] != self.pixel_shape:
            raise ValueError(f"expected uint8 (n, {self.pixel_shape}), got {images.dtype} {images.shape}")
        if out.dtype != np.float32 or out.shape != (len(images), *self.shape):
            raise ValueError(
                f"out: expected float32 {(len(images), *self.shape)}, got {out.dtype} {out.shape}"
            )
        for channel in range(self.channels):
            plane = out[:, channel]
            plane[...] = images[..., channel]
            plane /= np.float32(255)
            plane -= np.float32(self.mean[channel])
            plane /= np.float32(self.std[channel])
        return out

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back to an equal spec."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "source_dtype": "uint8"}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """Read a manifest's `input` object; raises BundleError naming the field that is missing or wrong."""
        expected = {field.name for field in fields(cls)} | {"source_dtype"}
        if set(data) != expected:
            odd = sorted(expected.symmetric_difference(data))
            raise BundleError(f"manifest input: fields missing or unknown: {', '.join(odd)}")
        values = dict(data)
        if values.pop("source_dtype") != "uint8":
            raise BundleError(f"manifest input.source_dtype: expected uint8, got {data['source_dtype']!r}")
        try:
            return cls(**values)
        except UsageError as error:
            raise BundleError(f"manifest {error}") from None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _per_channel(name: str, values: object, channels: int) -> tuple[float, ...]:
    """Check one number per channel and return them as a tuple of floats."""
    listed = list(values) if isinstance(values, (list, tuple)) else []
    numbers = [v for v in listed if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(listed) != channels or len(numbers) != channels:
        raise UsageError(f"input.{name}: expected one finite number per channel ({channels}), got {values!r}")
    return tuple(float(value) for value in numbers)


def _check_array(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name}: expected {dtype.__name__} {shape}, got {array.dtype} {array.shape}")
