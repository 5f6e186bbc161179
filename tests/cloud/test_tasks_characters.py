"""Which characters the built-in data set is made of."""

import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.tasks.characters import FONT_FILES, SCRIPTS, distinct_characters
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font, LoadFlags


@pytest.fixture(scope="module")
def characters():
    return [character for split in distinct_characters().values() for character in split]


def outline(font, code):
    """The glyph's control points in font units, moved to the origin: equal only for equal outlines."""
    font.load_char(code, flags=LoadFlags.NO_SCALE)
    points, kinds = font.get_path()
    return np.round(points - points.min(axis=0), 3).tobytes() + bytes(kinds)


def test_there_are_a_thousand_characters_of_six_scripts_and_more(characters):
    assert len(characters) >= 1000
    assert len({character.script for character in characters}) >= 6
    assert len({character.code for character in characters}) == len(characters)


def test_every_split_has_classes_enough_for_twenty_ways_and_three_scripts():
    for characters in distinct_characters().values():
        assert len(characters) >= 100
        assert len({character.script for character in characters}) >= 3


def test_splits_share_no_script():
    listed = Counter(script for scripts in SCRIPTS.values() for script in scripts)
    assert max(listed.values()) == 1
    for split, characters in distinct_characters().items():
        assert {character.script for character in characters} <= set(SCRIPTS[split])
        for character in characters:
            assert unicodedata.name(chr(character.code)).startswith(character.script.upper())


@pytest.mark.parametrize("file", FONT_FILES)
def test_no_two_characters_have_the_same_outline_in_any_font(characters, file):
    font = FT2Font(str(Path(get_data_path(), "fonts", "ttf", file)))
    charmap = font.get_charmap()
    outlines = Counter(outline(font, c.code) for c in characters if c.code in charmap)
    assert len(outlines) > 300
    assert max(outlines.values()) == 1


def test_an_outline_that_scripts_share_is_the_class_of_one_of_them(characters):
    codes = {character.code for character in characters}
    for group in ("AΑА", "OΟОՕ", "XΧХⵝ", "HΗН", "TΤТ"):
        assert len(codes & {ord(letter) for letter in group}) <= 1, group


def test_accented_letters_and_marks_are_left_out(characters):
    for character in characters:
        assert not unicodedata.decomposition(chr(character.code))
        assert unicodedata.category(chr(character.code)) in ("Lu", "Ll", "Lo", "Nd")


def test_no_raster_is_the_box_of_a_missing_glyph_or_nearly_blank(characters):
    for character in characters:
        assert character.rasters.shape[1:] == (48, 48)
        assert (character.rasters.mean(axis=(1, 2)) > 0.04 * 255).all()
    font = FT2Font(str(Path(get_data_path(), "fonts", "ttf", FONT_FILES[0])))
    assert all(character.code in font.get_charmap() for character in characters)


def test_rasters_are_centred_and_their_longer_side_is_36_pixels(characters):
    for character in characters:
        for raster in character.rasters:
            rows, columns = np.nonzero(raster)
            assert 34 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 36
            assert abs(rows.min() + rows.max() - 47) <= 3
            assert abs(columns.min() + columns.max() - 47) <= 3
