"""Folders of image files as support and query sets."""

import io
import zlib

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import ClassLabels, InputSpec, read_query, read_support
from PIL import Image

GREY = InputSpec(1, 12, 16, mean=(0.5,), std=(0.5,))
RGB = InputSpec(3, 12, 16, mean=(0.5,) * 3, std=(0.5,) * 3)


def picture(seed=0, mode="L", size=(16, 12), block=4):
    """Random squares of `block` pixels."""
    bands = len(mode)
    values = np.random.default_rng(seed).integers(
        0, 256, (-(-size[1] // block), -(-size[0] // block), bands), np.uint8
    )
    values = values.repeat(block, 0).repeat(block, 1)[: size[1], : size[0]]
    return Image.frombytes(mode, size, values.tobytes())


@pytest.fixture
def folder(tmp_path):
    """Two classes of two grey PNG files of the right size."""
    for index, name in enumerate(["b/2.png", "b/1.png", "a/x.png", "a/.hidden"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(index).save(tmp_path / name, format="PNG")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def only_image(folder, image, spec=GREY, **options):
    """Write one image beside the fixture's and return how it was read, with the notes."""
    image.save(folder / "a" / "only.png", **options)
    support = read_support(folder, spec)
    return support.images[0], support.converted


def test_sorted_folder_names_are_the_classes_and_files_come_sorted(folder):
    support = read_support(folder, GREY)
    assert support.class_names == ("a", "b")
    assert support.labels.tolist() == [0, 1, 1]
    for image, seed in zip(support.images, [2, 1, 0], strict=True):
        assert image[..., 0].tobytes() == np.asarray(picture(seed)).tobytes()
    assert support.converted == ()
    assert support.decode_bytes > 0


@pytest.mark.parametrize("resize", ["box", "bilinear"])
def test_another_size_is_resized_by_the_rule_of_the_spec_and_reported(folder, resize):
    spec = InputSpec(1, 12, 16, mean=(0.5,), std=(0.5,), resize=resize)
    large = picture(9, size=(37, 50))
    image, converted = only_image(folder, large, spec)
    expected = large.resize(
        (16, 12), {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR}[resize]
    )
    assert image[..., 0].tobytes() == np.asarray(expected).tobytes()
    assert converted == (f"1 image resized to 16x12 ({resize})",)


def test_box_resizing_by_a_whole_factor_is_the_block_average(folder):
    large = Image.fromarray(np.random.default_rng(3).integers(0, 256, (36, 48), np.uint8))
    image, _ = only_image(folder, large)
    average = np.asarray(large, np.float64).reshape(12, 3, 16, 3).mean(axis=(1, 3))
    assert np.abs(image[..., 0] - average).max() <= 1  # Pillow rounds after each of two passes


def test_rgb_becomes_grey_by_the_luma_weights(folder):
    colour = picture(4, "RGB")
    image, converted = only_image(folder, colour)
    luma = np.asarray(colour, np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(image[..., 0] - luma).max() <= 1
    assert converted == ("1 image converted from RGB to grey",)


def test_grey_becomes_rgb_with_equal_channels(folder):
    support = read_support(folder, RGB)
    assert support.images.shape == (3, 12, 16, 3)
    assert (support.images == support.images[..., :1]).all()
    assert support.converted == ("3 images converted from grey to RGB",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_flattened_on_white(folder, mode):
    clear = picture(5, mode)
    image, converted = only_image(folder, clear)
    values = np.asarray(clear, np.float64)
    alpha = values[..., -1] / 255
    grey = values[..., 0] if mode == "LA" else values[..., :3] @ [0.299, 0.587, 0.114]
    assert np.abs(image[..., 0] - (grey * alpha + 255 * (1 - alpha))).max() <= 2
    assert "1 image flattened on white" in converted


def test_a_palette_is_expanded(folder):
    colour = picture(6, "RGB")
    image, converted = only_image(folder, colour.quantize(256), RGB)
    assert np.abs(image.astype(int) - np.asarray(colour.quantize(256).convert("RGB"))).max() == 0
    assert "1 image expanded from a palette" in converted


def test_a_transparent_palette_is_flattened_on_white(folder):
    indexed = Image.frombytes("P", (16, 12), bytes([0, 1] * 96))
    indexed.putpalette([10, 10, 10, 90, 90, 90])
    image, converted = only_image(folder, indexed, transparency=1)
    assert (image[:, 0::2] == 10).all()
    assert (image[:, 1::2] == 255).all()
    assert converted[:2] == ("1 image expanded from a palette", "1 image flattened on white")


def test_one_bit_images_are_averaged_not_sampled(folder):
    bits = Image.fromarray(np.random.default_rng(3).integers(0, 2, (24, 32)).astype(bool))
    image, converted = only_image(folder, bits)
    average = 255 * np.asarray(bits, np.float64).reshape(12, 2, 16, 2).mean(axis=(1, 3))
    assert np.abs(image[..., 0] - average).max() <= 1
    assert converted == ("1 image resized to 16x12 (box)", "1 image expanded from 1 bit")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(folder, orientation):
    """Truth: turn the large image by hand first, then resize; block averages commute with turning."""
    turned = picture(7, size=(64, 48) if orientation < 5 else (48, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(folder / "a" / "only.jpg", exif=exif, quality=100)
    values = np.asarray(turned)
    values = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: values.T,
        6: np.rot90(values, -1), 7: np.rot90(values, 2).T, 8: np.rot90(values),
    }[orientation]  # fmt: skip
    support = read_support(folder, GREY)
    expected = values.reshape(12, 4, 16, 4).mean(axis=(1, 3))
    assert np.abs(support.images[0][..., 0] - expected).max() <= 6
    assert any("EXIF" in note for note in support.converted) == (orientation > 1)


def test_a_large_jpeg_is_decoded_reduced_and_still_looks_the_same(folder):
    """Squares of 80 pixels are whole output pixels and whole 8x8 cells: reducing adds only JPEG noise."""
    large = picture(8, "RGB", size=(16 * 80, 12 * 80), block=80)
    large.save(folder / "a" / "only.jpg", quality=95, subsampling=0)
    image = read_support(folder, RGB).images[0]
    assert np.abs(image.astype(int) - np.asarray(large)[::80, ::80]).max() <= 4


def test_a_photo_with_a_second_picture_inside_gives_the_first(folder):
    second = picture(1, "RGB")
    picture(2, "RGB").save(folder / "a" / "only.jpg", format="MPO", save_all=True, append_images=[second])
    with Image.open(folder / "a" / "only.jpg") as two:
        assert two.n_frames == 2
        first = np.asarray(two).copy()
    assert read_support(folder, RGB).images[0].tobytes() == first.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "PPM"])
def test_damaged_files_are_read_or_refused_in_one_line_and_nothing_else(folder, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture(1, "RGB").save(buffer, format=kind, **({"exif": exif} if kind == "JPEG" else {}))
    rng, messages = np.random.default_rng(0), []
    for _ in range(150):
        damaged = bytearray(buffer.getvalue())
        for place in rng.integers(0, min(len(damaged), 300), 3):
            damaged[place] = rng.integers(0, 256)
        (folder / "a" / "x.png").write_bytes(damaged)
        try:
            read_support(folder, GREY)
        except SupportError as error:
            messages.append(str(error))
    assert len(messages) > 10
    assert all("x.png" in message and "\n" not in message for message in messages)


def cmyk():
    return picture(1, "CMYK"), "jpg"


def sixteen_bit():
    return Image.fromarray(np.zeros((12, 16), np.uint16)), "png"


@pytest.mark.parametrize("make", [cmyk, sixteen_bit])
def test_pixels_that_cannot_be_converted_safely_are_refused(folder, make):
    image, suffix = make()
    image.save(folder / "a" / f"odd.{suffix}")
    with pytest.raises(SupportError, match=rf"odd\.{suffix}: its pixels are of kind .*convert it"):
        read_support(folder, GREY)


def png_chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


DEEP_FILES = {
    "odd.ppm": b"P6 2 2 65535\n" + bytes(24),
    "odd.png": b"\x89PNG\r\n\x1a\n"
    + png_chunk(b"IHDR", bytes([0, 0, 0, 2, 0, 0, 0, 2, 16, 2, 0, 0, 0]))
    + png_chunk(b"IDAT", zlib.compress(bytes(26)))
    + png_chunk(b"IEND", b""),
}


@pytest.mark.parametrize("name", list(DEEP_FILES))
def test_colours_of_sixteen_bits_are_refused(folder, name):
    (folder / "a" / name).write_bytes(DEEP_FILES[name])
    with pytest.raises(SupportError, match=r"odd\.p.*it has 16 bits per channel"):
        read_support(folder, RGB)


def test_an_animation_is_refused(folder):
    picture(1).save(folder / "a" / "odd.gif", save_all=True, append_images=[picture(2)])
    with pytest.raises(SupportError, match=r"odd\.gif: it is animated"):
        read_support(folder, GREY)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("read", [read_support, read_query])
def test_a_truncated_image_is_named(folder, suffix, read):
    buffer = io.BytesIO()
    picture(3, size=(160, 120)).save(buffer, format={"png": "PNG", "jpg": "JPEG"}[suffix])
    (folder / "a" / f"cut.{suffix}").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(SupportError, match=rf"cut\.{suffix}: cannot be decoded") as caught:
        read(folder, GREY)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "b" / "notes.txt").write_text("hello")
    with pytest.raises(SupportError, match=r"notes\.txt: not an image of a known kind"):
        read_support(folder, GREY)
    (folder / "b" / "notes.txt").write_bytes(b"")
    with pytest.raises(SupportError, match=r"notes\.txt: not an image of a known kind"):
        read_support(folder, GREY)


def test_an_image_with_absurdly_many_pixels_is_refused_from_its_header(folder):
    Image.new("1", (16000, 8000)).save(folder / "a" / "huge.png")
    with pytest.raises(SupportError, match=r"huge\.png: more than \d+ pixels"):
        read_support(folder, GREY)


def test_an_empty_class_is_named(folder):
    (folder / "c").mkdir()
    (folder / "c" / ".hidden").write_text("")
    with pytest.raises(SupportError, match="c: the class folder is empty"):
        read_support(folder, GREY)


def test_a_single_class_and_no_class_are_refused(tmp_path):
    with pytest.raises(SupportError, match="at least 2 classes, got 0"):
        read_support(tmp_path, GREY)
    (tmp_path / "a").mkdir()
    picture().save(tmp_path / "a" / "1.png")
    with pytest.raises(SupportError, match="at least 2 classes, got 1"):
        read_support(tmp_path, GREY)


def test_a_folder_inside_a_class_folder_is_refused(folder):
    (folder / "a" / "more").mkdir()
    with pytest.raises(SupportError, match="more: a folder inside a class folder"):
        read_support(folder, GREY)


def test_a_file_beside_class_folders_is_refused(folder):
    picture().save(folder / "stray.png")
    with pytest.raises(SupportError, match=r"stray\.png: expected one sub-folder per class"):
        read_support(folder, GREY)


def test_limits_are_checked_before_anything_is_decoded(folder):
    (folder / "a" / "bad.png").write_bytes(b"no image")
    with pytest.raises(SupportError, match="2 classes, but the model's head has 1 outputs"):
        read_support(folder, GREY, ClassLabels(1))
    with pytest.raises(SupportError, match="4 samples, but the plan is for at most 3"):
        read_support(folder, GREY, max_samples=3)


def test_an_image_too_dear_to_decode_is_refused_and_the_dearest_is_named(folder):
    picture(1, size=(400, 400)).save(folder / "b" / "large.png")
    price = read_support(folder, GREY).decode_bytes
    assert read_support(folder, GREY, memory_limit_bytes=price).decode_bytes == price
    for read in (read_support, read_query):
        with pytest.raises(SupportError, match=r"large\.png: decoding it takes .* above the limit"):
            read(folder, GREY, memory_limit_bytes=price - 1)


def test_queries_from_class_folders_know_their_labels(folder):
    query = read_query(folder, GREY)
    assert query.names == ("a/x.png", "b/1.png", "b/2.png")
    assert query.labels == ("a", "b", "b")
    assert query.images.tobytes() == read_support(folder, GREY).images.tobytes()


def test_queries_from_a_flat_folder_have_names_alone(folder):
    query = read_query(folder / "b", GREY)
    assert (query.names, query.labels) == (("1.png", "2.png"), None)


def test_a_query_folder_must_hold_images_and_of_one_layout(folder, tmp_path_factory):
    with pytest.raises(SupportError, match="there are no images in it"):
        read_query(tmp_path_factory.mktemp("empty"), GREY)
    picture().save(folder / "stray.png")
    with pytest.raises(SupportError, match=r"images beside sub-folders \(stray\.png\)"):
        read_query(folder, GREY)
