"""What support sets say about their samples: targets, actions and advantages, and samples that are no images."""

from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge.errors import SupportError
from edge_adapt.edge.inputs import (
    ArraySpec,
    ClassLabels,
    InputSpec,
    Target,
    Targets,
    query_from_arrays,
    read_query,
    read_support,
    support_from_arrays,
)
from PIL import Image

SPEC = ArraySpec((2, 3), mean=(1.0, 2.0), std=(0.5,))
IMAGE = InputSpec(1, 4, 6, mean=(0.5,), std=(0.5,))
REGRESSION = Targets((Target("targets", (4,)),))
POLICY = Targets((Target("actions", (), below=3), Target("advantages", ())))
COUNT = 5


def floats(*shape, count=COUNT):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def spoiled(array, value, index):
    array = array.copy()
    array[index] = value
    return array


SAMPLES, TARGETS = floats(2, 3), floats(4)
ACTIONS, ADVANTAGES = np.array([0, 2, 1, 1, 0]), floats()


@pytest.fixture(params=["arrays", "npz", "npz of inputs"])
def support(request, tmp_path):
    """The ways in: all must say and give the same."""

    def read(samples, given, answers, spec=SPEC, max_samples=None):
        if request.param == "arrays":
            return support_from_arrays("arrays", samples, given, spec, answers, max_samples)
        name = "inputs" if "inputs" in request.param else "images"
        np.savez(tmp_path / "set.npz", **{name: samples}, **given)
        return read_support(tmp_path / "set.npz", spec, answers, max_samples)

    return read


def test_targets_are_given_to_the_loss_as_they_are(support):
    result = support(SAMPLES, {"targets": TARGETS}, REGRESSION, max_samples=COUNT)
    assert result.loss_inputs()["targets"].tobytes() == TARGETS.tobytes()
    assert (len(result), result.class_names, result.decode_bytes) == (COUNT, (), 0)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint16])
def test_actions_of_any_integer_type_become_int64(support, dtype):
    given = {"actions": ACTIONS.astype(dtype), "advantages": ADVANTAGES}
    result = support(SAMPLES, given, POLICY).loss_inputs()
    assert result["actions"].dtype == np.int64
    assert result["actions"].tolist() == ACTIONS.tolist()
    assert result["advantages"].tobytes() == ADVANTAGES.tobytes()


def test_array_samples_reach_the_network_normalised(support):
    out = np.empty((2, 2, 3), np.float32)
    support(SAMPLES, {"labels": ACTIONS}, ClassLabels()).fill(3, out)
    assert out.tobytes() == SPEC.preprocess(SAMPLES)[3:5].tobytes()


def test_an_image_model_may_learn_from_targets(support):
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 6, 1), np.uint8)
    assert support(pixels, {"targets": TARGETS}, REGRESSION, IMAGE).images.dtype == np.uint8


@pytest.mark.parametrize(
    ("samples", "given", "answers", "message"),
    [
        (floats(3, 2), {"targets": TARGETS}, REGRESSION, r"float32 values \(n, 2, 3\), got float32 \(5, 3, 2\)"),
        (floats(6), {"targets": TARGETS}, REGRESSION, r"got float32 \(5, 6\); save them as float32 in this shape"),
        (SAMPLES.astype(int), {"targets": TARGETS}, REGRESSION, r"got int64 \(5, 2, 3\); save them as float32"),
        (SAMPLES.astype(float), {"targets": TARGETS}, REGRESSION, "got float64"),
        (SAMPLES[:0], {"targets": TARGETS[:0]}, REGRESSION, "there are none"),
        (spoiled(SAMPLES, np.nan, (3, 1, 2)), {"targets": TARGETS}, REGRESSION, "sample 3 holds NaN or infinity"),
        (SAMPLES, {"targets": TARGETS[:4]}, REGRESSION, r"targets: .*shape \(5, 4\), .* got float32 \(4, 4\)"),
        (SAMPLES, {"targets": TARGETS[:, 0]}, REGRESSION, r"targets: .*got float32 \(5,\)"),
        (SAMPLES, {"targets": TARGETS[..., None]}, REGRESSION, r"targets: .*got float32 \(5, 4, 1\)"),
        (SAMPLES, {"targets": TARGETS.astype(float)}, REGRESSION, "targets: expected float32 .*got float64"),
        (SAMPLES, {"targets": TARGETS.astype(int)}, REGRESSION, "targets: expected float32 .*got int64"),
        (SAMPLES, {"targets": spoiled(TARGETS, np.inf, (2, 0))}, REGRESSION, "targets: sample 2 holds NaN or inf"),
        (SAMPLES, {"actions": ACTIONS, "advantages": ADVANTAGES[:3]}, POLICY, r"advantages: .*got float32 \(3,\)"),
        (SAMPLES, {"actions": ACTIONS > 0, "advantages": ADVANTAGES}, POLICY, "actions: expected integers .*bool"),
        (SAMPLES, {"actions": ADVANTAGES, "advantages": ADVANTAGES}, POLICY, "actions: expected integers"),
        (SAMPLES, {"actions": ACTIONS + 1, "advantages": ADVANTAGES}, POLICY, "sample 1 holds a value outside 0 to 2"),
        (SAMPLES, {"actions": ACTIONS - 1, "advantages": ADVANTAGES}, POLICY, "actions: sample 0 holds a value"),
        (SAMPLES, {"labels": ACTIONS}, ClassLabels(2), "3 classes, but the model's head has 2 outputs"),
        (SAMPLES, {"labels": ACTIONS[:3]}, ClassLabels(), r"labels: expected one per sample, shape \(5,\), got"),
    ],
)  # fmt: skip
def test_unfit_arrays_are_refused_in_one_line(support, samples, given, answers, message):
    with pytest.raises(SupportError, match=message) as caught:
        support(samples, given, answers)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_more_samples_than_planned_are_refused(support):
    with pytest.raises(SupportError, match="5 samples, but the plan is for at most 4; plan with --samples 5"):
        support(SAMPLES, {"targets": TARGETS}, REGRESSION, max_samples=4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": SAMPLES, "labels": ACTIONS}, "expected an array named 'targets', found images, labels"),
        ({"targets": TARGETS}, "expected one array named 'images' or 'inputs', found targets"),
        ({"inputs": SAMPLES, "images": SAMPLES, "targets": TARGETS}, "expected one array named 'images' or 'inp"),
        ({"inputs": SAMPLES, "targets": np.array([{}] * COUNT)}, "targets: holds Python objects"),
        ({"inputs": np.array([{}] * COUNT), "targets": TARGETS}, "inputs: holds Python objects"),
        ({"inputs": SAMPLES[:, :1], "targets": TARGETS}, "inputs: expected float32 values"),
    ],
)  # fmt: skip
def test_an_npz_with_other_arrays_names_them(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(SupportError, match=message):
        read_support(tmp_path / "set.npz", SPEC, REGRESSION)


def folder(home: Path) -> Path:
    for name in "ab":
        (home / name).mkdir()
        Image.new("L", (6, 4)).save(home / name / "0.png")
    return home


def test_a_folder_is_refused_where_the_model_takes_arrays_or_learns_from_numbers(tmp_path):
    photos = folder(tmp_path)
    with pytest.raises(
        SupportError, match=r"a folder of images, but this model takes float32 .*; give an \.npz"
    ):
        read_support(photos, SPEC)
    with pytest.raises(SupportError, match=r"a folder of images, but this model takes float32"):
        read_query(photos, SPEC)
    with pytest.raises(SupportError, match=r"learns from targets; give an \.npz of images, targets"):
        read_support(photos, IMAGE, REGRESSION)
    assert len(read_query(photos, IMAGE)) == 2


def test_queries_of_arrays_may_have_either_name_and_labels_or_none(tmp_path):
    np.savez(tmp_path / "bare.npz", inputs=SAMPLES)
    np.savez(tmp_path / "labelled.npz", images=SAMPLES, labels=ACTIONS)
    bare, labelled = (read_query(tmp_path / name, SPEC) for name in ("bare.npz", "labelled.npz"))
    assert (bare.labels, labelled.labels) == (None, ("0", "2", "1", "1", "0"))
    out = np.empty((COUNT, 2, 3), np.float32)
    for query in (bare, labelled, query_from_arrays(SAMPLES, SPEC)):
        query.fill(0, out)
        assert out.tobytes() == SPEC.preprocess(SAMPLES).tobytes()
    with pytest.raises(SupportError, match="images: sample 1 holds NaN"):
        query_from_arrays(spoiled(SAMPLES, np.nan, (1, 0, 0)), SPEC)
