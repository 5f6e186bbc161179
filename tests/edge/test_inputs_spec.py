"""The input spec and its preprocessing."""

import json
import tracemalloc

import numpy as np
import pytest
from edge_adapt.edge.errors import BundleError, UsageError
from edge_adapt.edge.inputs import InputSpec, spec_from_json

RGB = InputSpec(3, 5, 4, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), resize="bilinear")
GREY = InputSpec(1, 28, 28, mean=(0.0,), std=(1.0,))


def test_preprocessing_is_the_written_formula_channel_by_channel():
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), np.uint8)
    result = RGB.preprocess(images)
    assert result.dtype == np.float32
    for n, c, h, w in np.ndindex(result.shape):
        value = np.float32(images[n, h, w, c]) / np.float32(255)
        expected = (value - np.float32(RGB.mean[c])) / np.float32(RGB.std[c])
        assert result[n, c, h, w] == expected


def test_mean_zero_and_std_one_map_black_and_white_to_exactly_zero_and_one():
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[1] = 255
    result = GREY.preprocess(images)
    assert (result[0] == 0).all()
    assert (result[1] == 1).all()


def test_preprocessing_in_pieces_into_a_given_array_equals_preprocessing_at_once():
    images = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3), np.uint8)
    arena = np.full(6 * 60 + 3, np.nan, np.float32)
    for start in range(0, 6, 2):
        view = arena[start * 60 : (start + 2) * 60].reshape(2, 3, 5, 4)
        assert RGB.preprocess(images[start : start + 2], view) is view
    assert arena[:360].tobytes() == RGB.preprocess(images).tobytes()
    assert np.isnan(arena[360:]).all()


def test_preprocessing_into_a_given_array_allocates_less_than_one_sample():
    spec = InputSpec(3, 128, 128, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = np.zeros((16, 128, 128, 3), np.uint8)
    out = np.empty((16, 3, 128, 128), np.float32)
    spec.preprocess(images, out)
    tracemalloc.start()
    spec.preprocess(images, out)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 * 3 * 128 * 128


@pytest.mark.parametrize(
    ("images", "out"),
    [
        (np.zeros((2, 4, 5, 3), np.uint8), None),
        (np.zeros((2, 5, 4, 3), np.float32), None),
        (np.zeros((2, 5, 4, 3), np.uint8), np.zeros((3, 3, 5, 4), np.float32)),
        (np.zeros((2, 5, 4, 3), np.uint8), np.zeros((2, 3, 5, 4), np.float64)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(images, out):
    with pytest.raises(ValueError, match=r"expected (uint8|float32) \("):
        RGB.preprocess(images, out)


@pytest.mark.parametrize("spec", [RGB, GREY])
def test_a_spec_survives_json(spec):
    assert InputSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_json_form_is_the_documented_one():
    assert GREY.to_json() == {
        "kind": "image", "channels": 1, "height": 28, "width": 28, "mean": [0.0], "std": [1.0],
        "resize": "box", "source_dtype": "uint8",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 2}, "input.channels: expected 1"),
        ({"height": 0}, "input.height: expected a positive integer"),
        ({"width": 2.5}, "input.width: expected a positive integer"),
        ({"resize": "nearest"}, "input.resize: expected one of box, bilinear"),
        ({"mean": [0.0, 0.0]}, "input.mean: expected one finite number per channel"),
        ({"mean": ["x"]}, "input.mean"),
        ({"std": [0.0]}, "input.std: expected positive"),
        ({"std": [float("nan")]}, "input.std: expected one finite number"),
    ],
)
def test_a_field_that_cannot_be_is_named(change, message):
    data = GREY.to_json() | change
    with pytest.raises(BundleError, match=message):
        InputSpec.from_json(data)
    fields = {key: value for key, value in data.items() if key not in ("kind", "source_dtype")}
    with pytest.raises(UsageError, match=message):
        InputSpec(**fields)


def test_json_without_a_kind_is_that_of_an_image():
    data = RGB.to_json()
    del data["kind"]
    assert InputSpec.from_json(data) == spec_from_json(data) == RGB


@pytest.mark.parametrize("change", [{"source_dtype": "uint16"}, {"gamma": 2.2}, {"kind": "array"}])
def test_json_of_another_kind_is_refused(change):
    with pytest.raises(BundleError, match=next(iter(change))):
        InputSpec.from_json(GREY.to_json() | change)


def test_json_without_a_field_names_it():
    data = GREY.to_json()
    del data["std"]
    with pytest.raises(BundleError, match="missing or unknown: std"):
        InputSpec.from_json(data)
