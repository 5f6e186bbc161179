"""The letters and digits of the DejaVu fonts that matplotlib ships, one class per distinct shape.

Left out: precomposed accented letters, ligatures and presentation forms (they decompose), marks, punctuation,
what is too small or too faint, and any character that looks like an earlier one in any of the fonts, whatever
its script: A of Latin, Greek and Cyrillic is one class. Scripts are visited in the order below, so a shape
that several of them share belongs to the first and its split alone.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageFont

SCRIPTS = {
    "test": ("Georgian", "Armenian", "Tifinagh"),
    "val": ("Arabic", "Lao", "Nko"),
    "train": (
        "Hebrew", "Old Italic", "Ogham", "Coptic", "Greek", "Canadian Syllabics", "Cyrillic", "Latin", "Lisu",
    ),
}  # fmt: skip
FONT_FILES = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")
RASTER = 48
_INK = 36
_FONT_SIZE = 64
_SMALLEST_SIDE = _FONT_SIZE // 5
_LEAST_INK = 0.045
_CATEGORIES = ("Lu", "Ll", "Lo", "Nd")
_ALIKE = 0.92
_ALIKE_ASPECT = 1.4
_UNIT = 4096


@dataclass(frozen=True)
class Character:
    """One class: a code point, the script it is filed under, and its shape in each font that has it.

    Attributes:
        code: Unicode code point.
        script: one of SCRIPTS.
        rasters: uint8 (fonts, RASTER, RASTER), ink 255 on 0, the longer side of the ink scaled to 36 pixels.
    """

    code: int
    script: str
    rasters: NDArray[np.uint8]

    @property
    def name(self) -> str:
        """Class name, "Script/U+XXXX"."""
        return f"{self.script}/U+{self.code:04X}"


@dataclass(frozen=True)
class _Look:
    """What two characters are compared by, one row per font.

    Attributes:
        shapes: (fonts, 256) whole numbers, rows of length about _UNIT, so products are exact everywhere.
        aspects: (fonts,) logarithm of height/width.
    """

    shapes: NDArray[np.float64]
    aspects: NDArray[np.float64]

    def resembles(self, other: _Look) -> bool:
        """Tell whether any font's shape is nearly one of the other's: a stretch apart, within 1.4."""
        near = np.abs(self.aspects[:, None] - other.aspects) < np.log(_ALIKE_ASPECT)
        return bool((near & (self.shapes @ other.shapes.T > _ALIKE * _UNIT**2)).any())

    def joined(self, other: _Look) -> _Look:
        """Return the rows of both."""
        shapes = np.concatenate([self.shapes, other.shapes])
        return _Look(shapes, np.concatenate([self.aspects, other.aspects]))


@lru_cache(maxsize=1)
def distinct_characters() -> dict[str, tuple[Character, ...]]:
    """Return split -> characters in order of script and code point; no two of all splits look alike."""
    paths = [Path(get_data_path(), "fonts", "ttf", file) for file in FONT_FILES]
    charmaps = [FT2Font(str(path)).get_charmap() for path in paths]
    fonts = [ImageFont.truetype(str(path), _FONT_SIZE) for path in paths]
    seen = _Look(np.empty((0, 256)), np.empty(0))
    chosen: dict[str, tuple[Character, ...]] = {}
    for split, scripts in SCRIPTS.items():
        kept = []
        for code, script in _candidates(sorted(charmaps[0]), scripts):
            having = [font for font, charmap in zip(fonts, charmaps, strict=True) if code in charmap]
            inks = [ink for ink in (_ink(font, code) for font in having) if ink is not None]
            look = _look(inks)
            if len(inks) == len(having) and not seen.resembles(look):
                seen = seen.joined(look)
                kept.append(Character(code, script, np.stack([_raster(ink) for ink in inks])))
        chosen[split] = tuple(kept)
    return chosen


def _candidates(codes: list[int], scripts: tuple[str, ...]) -> list[tuple[int, str]]:
    """Return (code, script) of the scripts' letters and digits, script by script."""
    listed = []
    for script in scripts:
        for code in codes:
            character = chr(code)
            if (
                unicodedata.name(character, "").startswith(script.upper() + " ")
                and unicodedata.category(character) in _CATEGORIES
                and not unicodedata.decomposition(character)
            ):
                listed.append((code, script))
    return listed


def _ink(font: ImageFont.FreeTypeFont, code: int) -> Image.Image | None:
    """Draw one character and crop it to its ink; None where it is blank, tiny or a few dots."""
    mask = font.getmask(chr(code), mode="L")
    pixels = np.array(mask, np.uint8).reshape(mask.size[::-1])
    rows, columns = np.nonzero(pixels > 64)
    if not len(rows) or max(np.ptp(rows), np.ptp(columns)) < _SMALLEST_SIDE:
        return None
    ink = Image.fromarray(pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    return ink if _raster(ink).mean() >= 255 * _LEAST_INK else None


def _raster(ink: Image.Image) -> NDArray[np.uint8]:
    """Scale ink so that its longer side is _INK pixels, and centre it."""
    scale = _INK / max(ink.size)
    return _centred(ink, max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))


def _centred(ink: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    canvas = np.zeros((RASTER, RASTER), np.uint8)
    top, left = (RASTER - height) // 2, (RASTER - width) // 2
    resized = ink.resize((width, height), Image.Resampling.BILINEAR)
    canvas[top : top + height, left : left + width] = np.asarray(resized)
    return canvas


def _look(inks: list[Image.Image]) -> _Look:
    shapes = np.array([_shape(ink) for ink in inks]).reshape(-1, 256)
    return _Look(shapes, np.log([ink.height / ink.width for ink in inks]))


def _shape(ink: Image.Image) -> NDArray[np.float64]:
    """Describe ink, stretched to a square, by a blurred 16x16 picture of mean 0 and length _UNIT, rounded."""
    stretched = Image.fromarray(_centred(ink, _INK, _INK)).filter(ImageFilter.GaussianBlur(1.5))
    values = np.asarray(stretched.resize((16, 16), Image.Resampling.BOX), np.float64).ravel()
    values -= values.mean()
    whole: NDArray[np.float64] = np.rint(values * (_UNIT / np.sqrt((values**2).sum())))
    return whole
