"""The spec of inputs that are no images, and their preprocessing."""

import json
import tracemalloc

import numpy as np
import pytest
from edge_adapt.edge.errors import BundleError, UsageError
from edge_adapt.edge.inputs import ArraySpec, spec_from_json

MOTION = ArraySpec((3, 8), mean=(0.5, -1.0, 2.0), std=(2.0, 0.25, 3.0))
VECTOR = ArraySpec((5,), mean=(0.1,), std=(4.0,))
SPECTROGRAM = ArraySpec((1, 4, 6))
SPECS = [MOTION, VECTOR, SPECTROGRAM]


def values(spec, count=7):
    return np.random.default_rng(0).normal(size=(count, *spec.shape)).astype(np.float32)


@pytest.mark.parametrize("spec", SPECS)
def test_preprocessing_is_the_written_formula_along_the_first_axis(spec):
    samples = values(spec)
    result = spec.preprocess(samples)
    mean, std = (np.float32(n) * np.ones(spec.shape[0], np.float32) for n in (spec.mean, spec.std))
    for index in np.ndindex(result.shape):
        assert result[index] == (samples[index] - mean[index[1]]) / std[index[1]]


def test_mean_zero_and_std_one_change_nothing():
    samples = values(SPECTROGRAM)
    assert SPECTROGRAM.preprocess(samples).tobytes() == samples.tobytes()


def test_preprocessing_writes_into_the_given_array_and_allocates_less_than_one_sample():
    spec = ArraySpec((3, 4096), mean=(1.0, 2.0, 3.0), std=(2.0,))
    samples, out = values(spec, 4), np.full((4, *spec.shape), np.nan, np.float32)
    spec.write(samples, out)
    tracemalloc.start()
    assert spec.preprocess(samples, out) is out
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.tobytes() == spec.preprocess(samples).tobytes()
    assert peak_bytes < spec.sample_bytes == 4 * 3 * 4096


@pytest.mark.parametrize(
    ("samples", "out"),
    [
        (np.zeros((2, 8, 3), np.float32), None),
        (np.zeros((2, 3, 8), np.float64), None),
        (np.zeros((2, 3, 8), np.float32), np.zeros((3, 3, 8), np.float32)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(samples, out):
    with pytest.raises(ValueError, match=r"(samples|out): expected float32 \("):
        MOTION.preprocess(samples, out)


def test_only_float32_of_the_very_shape_is_accepted():
    assert MOTION.accepts(np.dtype(np.float32), (3, 8))
    assert not MOTION.accepts(np.dtype(np.float32), (8, 3))
    assert not MOTION.accepts(np.dtype(np.float32), (24,))
    for dtype in (np.float64, np.int64, np.uint8, ">f4"):
        assert not MOTION.accepts(np.dtype(dtype), (3, 8))


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_survives_json_and_is_found_by_its_kind(spec):
    data = json.loads(json.dumps(spec.to_json()))
    assert ArraySpec.from_json(data) == spec_from_json(data) == spec


def test_the_json_form_is_the_documented_one():
    assert VECTOR.to_json() == {
        "kind": "array", "shape": [5], "mean": [0.1], "std": [4.0], "source_dtype": "float32",
    }  # fmt: skip


def test_one_number_for_all_may_be_written_bare():
    assert ArraySpec.from_json({**VECTOR.to_json(), "mean": 0.1, "std": 4}) == VECTOR


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": []}, r"input\.shape: expected one or more positive integers, got \[\]"),
        ({"shape": [3, 0]}, r"input\.shape: expected one or more positive integers"),
        ({"shape": [2.5]}, r"input\.shape"),
        ({"shape": 8}, r"input\.shape"),
        ({"mean": [0.0, 0.0]}, r"input\.mean: expected one finite number, or 3 of them"),
        ({"mean": "x"}, r"input\.mean"),
        ({"std": [1.0, 0.0, 1.0]}, r"input\.std: expected positive"),
        ({"std": [float("inf")]}, r"input\.std: expected one finite number"),
    ],
)
def test_a_field_that_cannot_be_is_named(change, message):
    data = MOTION.to_json() | change
    with pytest.raises(BundleError, match=message):
        spec_from_json(data)
    with pytest.raises(UsageError, match=message):
        ArraySpec(data["shape"], data["mean"], data["std"])


@pytest.mark.parametrize("kind", ["sound", None, 3, ["array"]])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(BundleError, match=r"manifest input\.kind: expected one of image, array, got"):
        spec_from_json(MOTION.to_json() | {"kind": kind})


def test_json_without_a_field_names_it():
    data = MOTION.to_json()
    del data["mean"]
    with pytest.raises(BundleError, match="missing or unknown: mean"):
        spec_from_json(data)
