"""What decoding an image file costs in memory and time, from its header alone.

Pillow keeps 4 bytes per pixel for everything but grey and palette images. A baseline JPEG is decoded at a
reduced size row by row; a progressive or multi-scan one keeps every coefficient (2 bytes) until the end.
"""

from __future__ import annotations

import math
from typing import BinaryIO

from PIL import Image, JpegImagePlugin

BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "RGB": 4, "RGBA": 4}
_FIXED_BYTES = 192 * 1024
_ROW_BYTES_PER_PIXEL = 96
_SCALES = (8, 4, 2, 1)
_FILE_SECONDS, _BYTE_SECONDS, _PIXEL_SECONDS = 0.35e-3, 10e-9, 1.5e-9
"""One core of an x86 machine, within a factor of 2 from 84 x 84 to 4000 x 3000 pixels, JPEG and PNG."""


def decode_bytes(image: Image.Image, expanded_mode: str, size: tuple[int, int]) -> int:
    """Price decoding, expanding and resizing an opened, not yet decoded image.

    Args:
        image: as `Image.open` returns it.
        expanded_mode: the mode its pixels are averaged in.
        size: (width, height) it is resized to.

    Returns:
        Bytes, an upper bound.
    """
    width, height = _decoded_size(image, size)
    pixels = width * height
    total = _FIXED_BYTES + _ROW_BYTES_PER_PIXEL * image.width + 2 * _metadata_bytes(image)
    total += pixels * BYTES_PER_PIXEL[image.mode] + _coefficient_bytes(image)
    if expanded_mode != image.mode:
        total += pixels * BYTES_PER_PIXEL[expanded_mode]
    if (width, height) != size:
        premultiplied = pixels if expanded_mode.endswith("A") else 0
        total += BYTES_PER_PIXEL[expanded_mode] * (premultiplied + size[0] * height)
    return total + 16 * size[0] * size[1]


def decode_seconds(file_bytes: int, pixels: int) -> float:
    """Return about what opening and decoding an image file takes."""
    return _FILE_SECONDS + file_bytes * _BYTE_SECONDS + pixels * _PIXEL_SECONDS


def _decoded_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size the file is decoded at: reduced for JPEG (Pillow's draft mode)."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return image.size
    largest = min(image.width // size[0], image.height // size[1])
    scale = next((scale for scale in _SCALES if largest >= scale), 1)
    return math.ceil(image.width / scale), math.ceil(image.height / scale)


def _coefficient_bytes(image: Image.Image) -> int:
    """Return the bytes of all DCT coefficients where the whole image must be kept, else 0."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or not _keeps_coefficients(image):
        return 0
    samplings = [(layer[1], layer[2]) for layer in image.layer]
    most = [max(sampling[axis] for sampling in samplings) for axis in (0, 1)]
    padded = math.ceil(image.width / 32) * math.ceil(image.height / 32) * 32 * 32
    return sum(math.ceil(2 * padded * v * h / (most[0] * most[1])) for v, h in samplings)


def _keeps_coefficients(image: JpegImagePlugin.JpegImageFile) -> bool:
    """Tell whether a JPEG comes in several scans: progressive, or one component after another."""
    if "progressive" in image.info:
        return True
    with open(image.filename, "rb") as file:
        return _first_scan_components(file) < len(image.layer)


def _first_scan_components(file: BinaryIO) -> int:
    """Walk a JPEG's markers to its first scan and return the number of components in it."""
    file.seek(2)
    while True:
        marker = file.read(2)
        while marker[1:] == b"\xff":
            marker = marker[1:] + file.read(1)
        length = file.read(2)
        if len(length) < 2 or marker[:1] != b"\xff":
            return 0
        if marker == b"\xff\xda":
            return int.from_bytes(file.read(1), "big")
        file.seek(int.from_bytes(length, "big") - 2, 1)


def _metadata_bytes(image: Image.Image) -> int:
    """Return the bytes of comments, profiles, thumbnails and unknown chunks that Pillow keeps beside the pixels."""
    kept = [*image.info.values(), *(segment for _, segment in getattr(image, "applist", []))]
    kept += (chunk[1] for chunk in getattr(image, "private_chunks", []))
    return sum(len(value) for value in kept if isinstance(value, (bytes, str)))
