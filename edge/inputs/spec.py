"""What a network expects of an image, and the one function that turns stored pixels into its input.

The cloud trains with `InputSpec.preprocess` and the device runs it too, so the two cannot drift apart.
Polarity is part of the pixels: nothing guesses whether ink is dark or light.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

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
    kind: ClassVar[str] = "image"
    advice: ClassVar[str] = "arrays are never resized"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UsageError(f"input.channels: expected 1 (grey) or 3 (RGB), got {self.channels!r}")
        for name in ("height", "width"):
            if not is_count(getattr(self, name)):
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

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one sample as a support set keeps it: its pixels."""
        return self.pixel_shape

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Type of a sample as a support set keeps it, uint8."""
        return np.dtype(np.uint8)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one stored sample."""
        return math.prod(self.pixel_shape)

    @property
    def expected(self) -> str:
        """What an array of samples must be, for error messages."""
        pixels, values = (", ".join(map(str, shape)) for shape in (self.pixel_shape, self.shape))
        return f"uint8 pixels (n, {pixels}) or float32 preprocessed values (n, {values})"

    def accepts(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Tell whether samples of this type and shape fit: pixels (grey ones also without their channel axis)
        or float32 values that are preprocessed already.
        """
        grey = (self.pixel_shape[:2],) if self.channels == 1 else ()
        pixels = dtype == np.uint8 and shape in (self.pixel_shape, *grey)
        return pixels or (dtype == np.float32 and shape == self.shape)

    def write(self, samples: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Write samples as network inputs into `out`: preprocessed if uint8, copied if float32."""
        if samples.dtype == np.uint8:
            self.preprocess(samples, out)
        else:
            np.copyto(out, samples, casting="no")

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
        return {
            "kind": self.kind,
            **asdict(self),
            "mean": list(self.mean),
            "std": list(self.std),
            "source_dtype": "uint8",
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """Read a manifest's `input` object; raises BundleError naming the field that is missing or wrong.

        Manifests without a `kind` are those of the first bundles, which had images only.
        """
        values = spec_fields({"kind": cls.kind, **data}, cls.kind, "uint8", {f.name for f in fields(cls)})
        try:
            return cls(**values)
        except UsageError as error:
            raise BundleError(f"manifest {error}") from None


def spec_fields(data: Mapping[str, Any], kind: str, dtype: str, names: set[str]) -> dict[str, Any]:
    """Return the fields `names` of a manifest's `input` object, after `kind` and `source_dtype` were checked.

    Raises:
        BundleError: a field is missing or unknown, or the object is of another kind.
    """
    expected = names | {"kind", "source_dtype"}
    if set(data) != expected:
        odd = sorted(expected.symmetric_difference(data))
        raise BundleError(f"manifest input: fields missing or unknown: {', '.join(odd)}")
    for name, value in (("kind", kind), ("source_dtype", dtype)):
        if data[name] != value:
            raise BundleError(f"manifest input.{name}: expected {value}, got {data[name]!r}")
    return {name: data[name] for name in names}


def is_count(value: object) -> bool:
    """Tell whether a value is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _per_channel(name: str, values: object, channels: int) -> tuple[float, ...]:
    """Check one number per channel and return them as a tuple of floats."""
    listed = list(values) if isinstance(values, (list, tuple)) else []
    numbers = [v for v in listed if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(listed) != channels or len(numbers) != channels:
        raise UsageError(f"input.{name}: expected one finite number per channel ({channels}), got {values!r}")
    return tuple(float(value) for value in numbers)
