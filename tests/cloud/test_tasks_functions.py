"""Regression tasks: sinusoids as Finn et al. draw them, and the user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.tasks import SPLITS, FunctionSampler, load_functions
from edge_adapt.cloud.tasks.arrays import load_arrays
from edge_adapt.edge.inputs import ArraySpec


def sinusoid_sampler(seed: int = 3, shots: int = 10) -> FunctionSampler:
    return FunctionSampler(load_functions("sinusoid", "train", None), shots=shots, queries=30, seed=seed)


def write(path: Path, samples: int = 20, seed: int = 0, **changes: np.ndarray) -> None:
    """A task of three features and two targets; its first feature is the file's number everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    inputs = rng.normal([0, 10, 5], [1, 4, 0], (samples, 3)).astype(np.float32)
    inputs[:, 0] = seed
    targets = np.stack([inputs[:, 0], inputs[:, 1]], 1)
    np.savez(path, **{"inputs": inputs, "targets": targets} | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(10):
        write(tmp_path / f"task{index}.npz", seed=index)
    return tmp_path


def test_every_task_is_a_sine_whose_amplitude_and_phase_are_in_their_ranges() -> None:
    batch = sinusoid_sampler().batch(0, 300)
    x = np.concatenate([batch.support_x, batch.query_x], 1)[..., 0].astype(float)
    y = np.concatenate([batch.support_y, batch.query_y], 1)[..., 0].astype(float)
    assert (batch.support_x.shape, batch.query_y.shape) == ((300, 10, 1), (300, 30, 1))
    amplitudes, phases = [], []
    for places, values in zip(x, y, strict=True):
        waves = np.stack([np.sin(places), np.cos(places)], 1)
        (a, b), residual, *_ = np.linalg.lstsq(waves, values, rcond=None)
        assert residual.item() < 1e-10
        amplitudes.append(np.hypot(a, b))
        phases.append(np.arctan2(-b, a))  # a sin x + b cos x = amplitude * sin(x - phase)
    assert 0.1 <= min(amplitudes) < 0.4 < 4.7 < max(amplitudes) <= 5
    assert 0 <= min(phases) < 0.1 < 3.0 < max(phases) <= np.pi + 1e-6
    assert -5 <= x.min() < -4.9 < 4.9 < x.max() <= 5
    assert np.mean(amplitudes) == pytest.approx(2.55, abs=5 * 4.9 / np.sqrt(12 * 300))


def test_a_task_depends_on_the_seed_and_its_number_alone() -> None:
    whole, part = sinusoid_sampler().batch(0, 5), sinusoid_sampler().batch(3, 2)
    np.testing.assert_array_equal(whole.query_y[3:], part.query_y)
    assert not np.array_equal(sinusoid_sampler(seed=4).batch(3, 2).query_y, part.query_y)


def test_a_task_of_a_folder_is_some_samples_of_one_file_none_of_them_twice(folder: Path) -> None:
    functions = load_arrays(folder, "train")
    assert (functions.spec.shape, functions.outputs, functions.most) == ((3,), 2, 20)
    sampler = FunctionSampler(functions, shots=5, queries=15, seed=0)
    seen = set()
    for batch in (sampler.batch(index, 1) for index in range(40)):
        targets = np.concatenate([batch.support_y[0], batch.query_y[0]])
        assert len(np.unique(targets[:, 0])) == 1
        assert len(np.unique(targets[:, 1])) == 20
        seen.add(int(targets[0, 0]))
    assert len(seen) == 6


def test_features_are_scaled_by_the_training_files_and_a_constant_one_is_only_centred(folder: Path) -> None:
    spec = load_arrays(folder, "train").spec
    assert load_arrays(folder, "test").spec == spec
    used = {int(load_arrays(folder, split).draw(np.random.default_rng(n), 1)[1][0, 0])
            for split in ("val", "test") for n in range(60)}  # fmt: skip
    training = [np.load(folder / f"task{n}.npz")["inputs"] for n in range(10) if n not in used]
    assert len(training) == 6
    values = np.concatenate(training).astype(float)
    np.testing.assert_allclose(spec.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(spec.std[:2], values.std(0)[:2], rtol=1e-6)
    assert spec.std[2] == 1.0
    given = load_arrays(folder, "train", mean=(1.0,), std=(2.0,)).spec
    assert (given.mean, given.std) == ((1.0,), (2.0,))


def test_every_file_is_in_one_split_and_folders_named_for_splits_are_taken(folder: Path) -> None:
    found = [
        {int(functions.draw(np.random.default_rng(n), 1)[1][0, 0]) for n in range(100)}
        for functions in (load_arrays(folder, split) for split in SPLITS)
    ]
    assert sorted(len(part) for part in found) == [2, 2, 6]
    assert set.union(*found) == set(range(10))
    for index, split in enumerate(SPLITS):
        write(folder / "split" / split / "only.npz", seed=70 + index)
    for index, split in enumerate(SPLITS):
        drawn = load_arrays(folder / "split", split).draw(np.random.default_rng(0), 4)
        assert (drawn[1][:, 0] == 70 + index).all()


def test_targets_are_as_they_were_given(folder: Path) -> None:
    inputs, targets = load_arrays(folder, "train").draw(np.random.default_rng(1), 8)
    assert inputs.dtype == targets.dtype == np.float32
    np.testing.assert_array_equal(targets, inputs[:, :2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.zeros(20, np.float32)}, r"targets \(20,\); single numbers have shape \(n, 1\)"),
        ({"inputs": np.zeros(20, np.float32)}, r"expected inputs \(n, \.\.\.\) and targets \(n, outputs\)"),
        ({"targets": np.zeros((20, 2))}, r"targets: expected float32 numbers .* got float64"),
        ({"inputs": np.full((20, 3), np.nan, np.float32)}, r"sample 0 holds NaN"),
        ({"targets": np.zeros((19, 2), np.float32)}, r"targets: expected float32 numbers of shape \(20, 2\)"),
    ],
)
def test_a_file_that_is_no_task_is_refused_in_one_line(
    changes: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    for split in SPLITS:
        write(tmp_path / split / "task.npz", **changes)
    with pytest.raises(ConfigError, match=message) as refused:
        load_arrays(tmp_path, "val")
    assert "task.npz" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_folders_that_hold_no_tasks_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root: which folder of \.npz files"):
        load_functions("arrays", "train", None)
    with pytest.raises(ConfigError, match=r"nowhere is no folder"):
        load_arrays(tmp_path / "nowhere", "train")
    write(folder / "split" / "train" / "a.npz")
    with pytest.raises(ConfigError, match=r"has no \.npz file in val/"):
        load_arrays(folder / "split", "train")
    with pytest.raises(ConfigError, match=r"has 1 tasks \(\.npz files\); three splits need at least 3"):
        load_arrays(folder / "split" / "train", "train")


def test_shapes_must_agree_between_files_with_the_network_and_with_the_shots(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples of shape \(3,\), but the network expects \(4,\)"):
        load_arrays(folder, "test", ArraySpec((4,)))
    with pytest.raises(ConfigError, match=r"sinusoid has samples of shape \(1,\), but the network expects"):
        load_functions("sinusoid", "test", None, ArraySpec((4,)))
    with pytest.raises(ConfigError, match=r"^task\.shots .*: 10 \+ 11 asked for, but a task .* has 20"):
        FunctionSampler(load_arrays(folder, "train"), shots=10, queries=11, seed=0)
    write(folder / "task5.npz", inputs=np.zeros((20, 5), np.float32))
    with pytest.raises(ConfigError, match=r"task5\.npz, inputs: expected float32 values \(n, 3\)"):
        _ = [load_arrays(folder, split) for split in SPLITS]
