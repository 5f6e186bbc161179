"""The letters and digits of the DejaVu fonts that matplotlib ships, one class per distinct shape.

Left out: precomposed accented letters, ligatures and presentation forms (they decompose), marks, punctuation,
and any character that looks like an earlier one in any of the fonts, whatever its script: A of Latin, Greek
and Cyrillic is one class. Scripts are visited test first, so a shape that several scripts share belongs to
the split named first below and to no other.
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
_SMALLEST = _FONT_SIZE // 5
_CATEGORIES = ("Lu", "Ll", "Lo", "Nd")
_ALIKE = 0.93
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


@lru_cache(maxsize=1)
def distinct_characters() -> dict[str, tuple[Character, ...]]:
    """Return split -> characters in order of script and code point; no two of all splits look alike."""
    paths = [Path(get_data_path(), "fonts", "ttf", file) for file in FONT_FILES]
    charmaps = [FT2Font(str(path)).get_charmap() for path in paths]
    fonts = [ImageFont.truetype(str(path), _FONT_SIZE) for path in paths]
    seen = np.empty((0, 256))
    chosen: dict[str, tuple[Character, ...]] = {}
    for split, scripts in SCRIPTS.items():
        kept = []
        for code, script in _candidates(sorted(charmaps[0]), scripts):
            having = [font for font, charmap in zip(fonts, charmaps, strict=True) if code in charmap]
            rasters = np.stack([_raster(font, code) for font in having])
            shapes = np.stack([_shape(raster) for raster in rasters if raster.any()] or [np.zeros(256)])
            if rasters.any(axis=(1, 2)).all() and not (seen @ shapes.T > _ALIKE * _UNIT**2).any():
                seen = np.concatenate([seen, shapes])
                kept.append(Character(code, script, rasters))
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


def _raster(font: ImageFont.FreeTypeFont, code: int) -> NDArray[np.uint8]:
    """Draw one character, cropped and centred; all zero where it is too small to be a shape."""
    canvas = np.zeros((RASTER, RASTER), np.uint8)
    mask = font.getmask(chr(code), mode="L")
    pixels = np.array(mask, np.uint8).reshape(mask.size[::-1])
    rows, columns = np.nonzero(pixels > 64)
    if not len(rows) or max(np.ptp(rows), np.ptp(columns)) < _SMALLEST:
        return canvas
    ink = Image.fromarray(pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    scale = _INK / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    top, left = (RASTER - height) // 2, (RASTER - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(
        ink.resize((width, height), Image.Resampling.BILINEAR)
    )
    return canvas


def _shape(raster: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Describe a raster by 256 whole numbers of length about _UNIT: products of two are exact everywhere."""
    small = Image.fromarray(raster).filter(ImageFilter.GaussianBlur(2)).resize((16, 16), Image.Resampling.BOX)
    values = np.asarray(small, np.float64).ravel()
    values -= values.mean()
    return np.rint(values * (_UNIT / np.sqrt((values**2).sum())))
