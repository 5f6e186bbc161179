"""One image file: what its header says, what decoding it costs, and decoding it to a sample's pixels.

Only conversions that lose nothing unexpected are made, and each is reported: another size, grey or RGB,
a palette, transparency (flattened on white), a camera's orientation. Anything else is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from ..errors import SupportError
from . import price
from .spec import InputSpec

_FILTERS = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}
_EXPANDED = {"1": "L", "P": "RGB", "PA": "RGBA"}
_NAMES = {"L": "grey", "LA": "grey with alpha", "RGB": "RGB", "RGBA": "RGB with alpha"}
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM")
TEXT_BYTES = 2 << 20
"""The most that the texts before a PNG's pixels may hold."""
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """An image file before decoding.

    Attributes:
        path: the file.
        decode_bytes: memory that decoding and converting it takes, above the sample's own pixels.
        converted: what decoding will change, one phrase each.
        seconds: about what decoding it takes.
    """

    path: Path
    decode_bytes: int
    converted: tuple[str, ...]
    seconds: float


def read_header(path: Path, spec: InputSpec) -> Header:
    """Read an image file's header; raises SupportError if the file cannot be converted safely."""
    with _opened(path) as image:
        size = _target_size(image, spec)
        decode_bytes = price.decode_bytes(image, _expanded_mode(image), size)
        seconds = price.decode_seconds(path.stat().st_size, image.width * image.height)
        return Header(path, decode_bytes, _conversions(image, spec), seconds)


def plain_decode_bytes(spec: InputSpec) -> int:
    """Return what decoding an RGB file of the network's own size takes, above the sample's own pixels."""
    image = Image.new("RGB", (spec.width, spec.height))
    return price.decode_bytes(image, image.mode, image.size)


def decode(path: Path, spec: InputSpec, out: NDArray[np.uint8]) -> None:
    """Decode an image file into `out`, uint8 (H, W, C), resized and converted as the spec says.

    JPEG files are decoded at the smallest of full, 1/2, 1/4 and 1/8 size that is not below the spec's.

    Raises:
        SupportError: the file is truncated or damaged.
    """
    with _opened(path) as image:
        turn = _orientation(image)
        image.draft(None, _target_size(image, spec))
        try:
            _load(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise SupportError(f"{path}: cannot be decoded ({error}); replace or remove it") from None
        sample = _resized(_expanded(image), _target_size(image, spec), spec)
        if turn in _TURNS:
            sample = sample.transpose(_TURNS[turn])
        flat = _flattened(sample).convert("L" if spec.channels == 1 else "RGB")
        out[...] = np.asarray(flat).reshape(out.shape)


def _load(image: Image.Image) -> None:
    """Decode the pixels; what a PNG holds behind them is not read, however large it would become."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        image.load_end = _nothing  # type: ignore[method-assign]
    image.load()


def _nothing() -> None:
    """Take the place of a Pillow hook."""


def _opened(path: Path) -> Image.Image:
    """Open a file without decoding it, and refuse what cannot be converted safely."""
    try:
        image = _open_strictly(path)
    except UnidentifiedImageError:
        raise SupportError(
            f"{path}: not an image of a known kind ({', '.join(_FORMATS)}); remove it"
        ) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise SupportError(
            f"{path}: more than {Image.MAX_IMAGE_PIXELS} pixels; scale the image down first"
        ) from None
    except (OSError, SyntaxError, ValueError, TypeError, Warning) as error:
        raise SupportError(f"{path}: cannot be read ({error}); replace or remove it") from None
    fault = _fault(image)
    if fault:
        image.close()
        raise SupportError(f"{path}: {fault}; convert it to one 8-bit grey or RGB image first")
    return image


def _open_strictly(path: Path) -> Image.Image:
    """Open a file and read its orientation; what Pillow would only warn of is an error, and so is much text."""
    with warnings.catch_warnings(), _little_text():
        warnings.simplefilter("error")
        image = Image.open(path, formats=_FORMATS)
        try:
            _orientation(image)
        except BaseException:
            image.close()
            raise
    return image


@contextmanager
def _little_text() -> Iterator[None]:
    """Have Pillow stop unpacking a PNG's texts at `TEXT_BYTES`: they are unpacked before they can be priced."""
    before = PngImagePlugin.MAX_TEXT_MEMORY
    PngImagePlugin.MAX_TEXT_MEMORY = TEXT_BYTES
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_MEMORY = before


def _fault(image: Image.Image) -> str | None:
    """Say why an opened image is not safe to convert, if so."""
    if image.mode not in price.BYTES_PER_PIXEL:
        return f"its pixels are of kind {image.mode}, expected 8-bit grey, RGB or a palette"
    if _is_deep(image):
        return "it has 16 bits per channel"
    if getattr(image, "is_animated", False) and image.format != "MPO":
        return "it is animated"
    return None


def _is_deep(image: Image.Image) -> bool:
    """Tell whether a file has more than 8 bits per channel, which Pillow would drop or rescale silently."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    if image.format == "PPM":
        return any(isinstance(tile.args, tuple) and tile.args[-1] > 255 for tile in tiles if "ppm" in tile[0])
    return any(";16" in str(tile.args) for tile in tiles)


def _orientation(image: Image.Image) -> int:
    """Return a JPEG's EXIF orientation, 1 if upright or unknown (other formats would have to be decoded)."""
    return int(image.getexif().get(_ORIENTATION_TAG, 1)) if image.format in ("JPEG", "MPO") else 1


def _target_size(image: Image.Image, spec: InputSpec) -> tuple[int, int]:
    """Return the size to resize to before the image is turned upright, (width, height)."""
    size = (spec.width, spec.height)
    return size[::-1] if _orientation(image) >= 5 else size


def _expanded_mode(image: Image.Image) -> str:
    if image.mode == "P" and "transparency" in image.info:
        return "RGBA"
    return _EXPANDED.get(image.mode, image.mode)


def _expanded(image: Image.Image) -> Image.Image:
    """Turn bits and palette indices into intensities, which a filter may average."""
    mode = _expanded_mode(image)
    return image if mode == image.mode else image.convert(mode)


def _resized(image: Image.Image, size: tuple[int, int], spec: InputSpec) -> Image.Image:
    return image if image.size == size else image.resize(size, _FILTERS[spec.resize])


def _flattened(image: Image.Image) -> Image.Image:
    """Lay a transparent image on white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def _conversions(image: Image.Image, spec: InputSpec) -> tuple[str, ...]:
    """List what decoding will change."""
    mode, wanted = _expanded_mode(image), "L" if spec.channels == 1 else "RGB"
    width, height = _target_size(image, spec)
    phrases = []
    if image.size != (width, height):
        phrases.append(f"resized to {spec.width}x{spec.height} ({spec.resize})")
    if _orientation(image) in _TURNS:
        phrases.append("turned upright as their EXIF orientation says")
    if image.mode != mode:
        phrases.append("expanded from a palette" if image.mode.startswith("P") else "expanded from 1 bit")
    if mode.endswith("A"):
        phrases.append("flattened on white")
    if mode.removesuffix("A") != wanted:
        phrases.append(f"converted from {_NAMES[mode.removesuffix('A')]} to {_NAMES[wanted]}")
    return tuple(phrases)
