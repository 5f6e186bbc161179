"""Arrays in memory and in .npz files as support and query sets."""

import io
import zipfile

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import (
    ClassLabels,
    InputSpec,
    from_arrays,
    query_from_arrays,
    read_query,
    read_support,
)

SPEC = InputSpec(1, 4, 6, mean=(0.5,), std=(0.5,))
RGB = InputSpec(3, 4, 6, mean=(0.5,) * 3, std=(0.5,) * 3)
LABELS = np.array([7, 3, 7, 12, 3])


def pixels(count=5, shape=(4, 6, 1)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def inputs(count=5, shape=(1, 4, 6)):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def saved(folder, **arrays):
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(params=["arrays", "npz"])
def support(request, tmp_path):
    """The two ways in: both must say and give the same."""

    def read(images, labels, spec=SPEC, max_classes=None, max_samples=None):
        if request.param == "arrays":
            return from_arrays(images, labels, spec, max_classes, max_samples)
        path = saved(tmp_path, images=images, labels=labels)
        return read_support(path, spec, ClassLabels(max_classes), max_samples)

    return read


def test_integer_labels_become_sorted_classes(support):
    result = support(pixels(), LABELS)
    assert result.class_names == ("3", "7", "12")
    assert result.labels.dtype == np.int64
    assert result.labels.tolist() == [1, 0, 1, 2, 0]
    assert result.images.tobytes() == pixels().tobytes()
    assert (len(result), result.decode_bytes, result.converted) == (5, 0, ())


def test_string_labels_become_sorted_classes(support):
    result = support(pixels(), np.array(["owl", "cat", "owl", "ant", "cat"]))
    assert result.class_names == ("ant", "cat", "owl")
    assert result.labels.tolist() == [2, 1, 2, 0, 1]


def test_grey_pixels_may_lack_the_channel_axis(support):
    assert support(pixels(shape=(4, 6)), LABELS).images.shape == (5, 4, 6, 1)


def test_uint8_reaches_the_network_preprocessed_and_float32_as_it_is(support):
    out = np.empty((2, 1, 4, 6), np.float32)
    support(pixels(), LABELS).fill(3, out)
    assert out.tobytes() == SPEC.preprocess(pixels())[3:5].tobytes()
    support(inputs(), LABELS).fill(3, out)
    assert out.tobytes() == inputs()[3:5].tobytes()


def test_filling_past_the_end_is_refused(support):
    for images in (pixels(), inputs()):
        with pytest.raises(ValueError, match="asked for samples 4 to 5, there are 5"):
            support(images, LABELS).fill(4, np.empty((2, 1, 4, 6), np.float32))


def test_limits_that_are_just_met_are_accepted(support):
    assert len(support(pixels(), LABELS, max_classes=3, max_samples=5)) == 5


@pytest.mark.parametrize(
    ("images", "labels", "limits", "message"),
    [
        (pixels(shape=(6, 4, 1)), LABELS, {}, "never resized"),
        (pixels(shape=(4, 6, 3)), LABELS, {}, r"images: expected uint8 pixels \(n, 4, 6, 1\)"),
        (inputs(shape=(4, 6, 1)), LABELS, {}, r"float32 preprocessed values \(n, 1, 4, 6\)"),
        (inputs().astype(np.float64), LABELS, {}, "got float64"),
        (inputs().astype(">f4"), LABELS, {}, "got >f4"),
        (pixels().astype(np.uint16), LABELS, {}, "got uint16"),
        (inputs().astype(np.complex64), LABELS, {}, "got complex64"),
        (np.uint8(3), LABELS, {}, "images: expected"),
        (pixels(0), LABELS[:0], {}, "there are none"),
        (pixels(), LABELS[:4], {}, r"labels: expected one per sample, shape \(5,\), got \(4,\)"),
        (pixels(), LABELS[:, None], {}, "labels: expected one per sample"),
        (pixels(), LABELS.astype(np.float32), {}, "labels: expected integers or strings, got float32"),
        (pixels(), LABELS > 5, {}, "labels: expected integers or strings, got bool"),
        (pixels(), LABELS * 0, {}, "at least 2 classes, got 1"),
        (pixels(), LABELS, {"max_classes": 2}, "3 classes, but the model's head has 2 outputs"),
        (pixels(), LABELS, {"max_samples": 4}, "5 samples, but the plan is for at most 4"),
    ],
)
def test_unfit_arrays_are_refused_in_one_line(support, images, labels, limits, message):
    with pytest.raises(SupportError, match=message) as caught:
        support(np.asarray(images), labels, **limits)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_with_a_value_that_is_not_finite_is_named(support, value):
    images = inputs()
    images[3, 0, 2, 2] = value
    with pytest.raises(SupportError, match="sample 3 holds NaN or infinity"):
        support(images, LABELS)


def test_rgb_pixels_need_their_channel_axis(support):
    assert support(pixels(shape=(4, 6, 3)), LABELS, RGB).images.shape == (5, 4, 6, 3)
    with pytest.raises(SupportError, match="images: expected"):
        support(pixels(shape=(4, 6)), LABELS, RGB)


def test_object_labels_are_refused_unread():
    with pytest.raises(SupportError, match="got object"):
        from_arrays(pixels(), np.array(["a", 1, "a", 1, "a"], object), SPEC)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_an_npz_with_pickled_objects_is_refused(tmp_path, name):
    arrays = {"images": pixels(), "labels": LABELS} | {name: np.array([{}] * 5, object)}
    with pytest.raises(SupportError, match=f"{name}: holds Python objects"):
        read_support(saved(tmp_path, **arrays), SPEC)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_an_npz_without_a_needed_array_names_it(tmp_path, name):
    arrays = {"images": pixels(), "labels": LABELS}
    del arrays[name]
    with pytest.raises(SupportError, match=rf"expected .*array named '{name}'.*, found {'|'.join(arrays)}"):
        read_support(saved(tmp_path, **arrays), SPEC)


def test_an_unfit_npz_is_refused_before_its_data_are_read(tmp_path):
    path = saved(tmp_path, images=pixels(shape=(60, 60, 3)), labels=LABELS)
    content = bytearray(path.read_bytes())
    content[400:2000] = bytes(1600)
    path.write_bytes(content)
    with pytest.raises(SupportError, match="never resized"):
        read_support(path, SPEC)


def test_an_npz_with_damaged_data_is_refused(tmp_path):
    spec = InputSpec(1, 100, 100, mean=(0.5,), std=(0.5,))
    path = saved(tmp_path, images=pixels(shape=spec.pixel_shape), labels=LABELS)
    content = bytearray(path.read_bytes())
    content[40000] ^= 255
    path.write_bytes(content)
    for read in (read_support, read_query):
        with pytest.raises(SupportError, match="images: cannot be read"):
            read(path, spec)


def test_an_npz_that_announces_more_data_than_it_has_is_refused_before_room_is_made(tmp_path):
    header = io.BytesIO()
    shape = (10**12, *SPEC.pixel_shape)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(24))
    with pytest.raises(SupportError, match="announces 24000000000000 bytes of data and has 24"):
        read_query(path, SPEC)


def test_a_file_that_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "set.npz"
    path.write_bytes(b"not a zip file")
    with pytest.raises(SupportError, match=r"not an \.npz file that can be read"):
        read_support(path, SPEC)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"not an array")
    with pytest.raises(SupportError, match=r"not an \.npz file that can be read"):
        read_query(path, SPEC)


@pytest.mark.parametrize("read", [read_support, read_query])
def test_a_path_that_is_neither_folder_nor_npz_is_refused(tmp_path, read):
    with pytest.raises(SupportError, match="no such file or folder"):
        read(tmp_path / "absent", SPEC)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SupportError, match=r"expected a folder of images or an \.npz file"):
        read(tmp_path / "a.txt", SPEC)


def test_queries_may_lack_labels_and_be_of_one_class(tmp_path):
    bare = read_query(saved(tmp_path, images=pixels()), SPEC)
    assert (bare.labels, bare.names, len(bare)) == (None, ("0", "1", "2", "3", "4"), 5)
    labelled = read_query(saved(tmp_path, images=pixels(), labels=LABELS * 0 + 3), SPEC)
    assert labelled.labels == ("3",) * 5
    out = np.empty((5, 1, 4, 6), np.float32)
    labelled.fill(0, out)
    assert out.tobytes() == SPEC.preprocess(pixels()).tobytes()
    assert query_from_arrays(inputs(), SPEC).names == bare.names


def test_unfit_queries_are_refused(tmp_path):
    bad = inputs()
    bad[0] = np.nan
    for images in (pixels(shape=(6, 4, 1)), pixels(0), bad):
        with pytest.raises(SupportError, match="images"):
            read_query(saved(tmp_path, images=images), SPEC)
        with pytest.raises(SupportError, match="images"):
            query_from_arrays(images, SPEC)
    with pytest.raises(SupportError, match="labels: expected one per sample"):
        read_query(saved(tmp_path, images=pixels(), labels=LABELS[:2]), SPEC)
