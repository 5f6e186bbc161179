"""Supervised pre-training: it learns, repeats, resumes, and its weights start a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from edge_adapt.cloud.cli import main
from edge_adapt.cloud.config import DataConfig
from edge_adapt.cloud.errors import ConfigError
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import Meta
from edge_adapt.cloud.parts.initial import with_weights
from edge_adapt.cloud.pretraining import Pretraining, pretrain
from edge_adapt.cloud.pretraining.images import crops, order_of, split
from edge_adapt.cloud.run.loop import TrainingError
from edge_adapt.cloud.tasks import Dataset
from edge_adapt.edge.inputs import InputSpec
from safetensors.torch import load_file
from torch.nn import functional as F

SPEC = InputSpec(1, 16, 16, mean=(0.5,), std=(0.25,))
GRAY = {"channels": 1, "size": 16, "mean": (0.5,), "std": (0.25,)}
SMALL = {"epochs": 3, "batch": 4, "held_out": 0.2, "backbone": "conv4", "learning_rate": 0.05}


@pytest.fixture
def settings(stripes: Path) -> Pretraining:
    data = DataConfig("folder", str(stripes), **GRAY)
    return Pretraining(data, architecture={"norm": "batch"}, mirror=False, **SMALL)


def pretrain_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["pretrain", *map(str, arguments)])


def dataset(classes: int = 3, images: int = 10) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = tuple(rng.integers(0, 256, (images, 16, 16, 1), np.uint8) for _ in range(classes))
    return Dataset("own", "train", pixels, tuple(map(str, range(classes))), SPEC)


def test_a_network_learns_to_tell_classes_apart_and_leaves_everything_but_its_classifier(
    settings: Pretraining, tmp_path: Path
) -> None:
    done = pretrain(settings, tmp_path / "out")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert done.accuracy == result["held_out_accuracy"] > 2 / result["classes"]
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,loss,held_out_accuracy"
    assert len(rows) == 1 + settings.epochs
    module = build_backbone("conv4", SPEC.shape, result["classes"], 0, {"norm": "batch"})
    floating = {name for name, value in module.state_dict().items() if value.is_floating_point()}
    assert set(load_file(done.weights)) == {name for name in floating if not name.startswith("fc.")}
    assert any(name.endswith("running_var") for name in floating)
    assert "root" not in result["settings"]["data"] or result["settings"]["data"]["root"] == "none"


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    settings: Pretraining, tmp_path: Path
) -> None:
    once, again = (load_file(pretrain(settings, tmp_path / name).weights) for name in ("a", "b"))
    assert all(torch.equal(once[name], again[name]) for name in once)
    other = Pretraining(**{**vars(settings), "seed": 1})
    others = load_file(pretrain(other, tmp_path / "c").weights)
    assert any(not torch.equal(once[name], others[name]) for name in once)


STOPPED = """
import os, signal
import torch
from edge_adapt.cloud.pretraining import supervised as loop
torch.set_num_threads(1)
step = loop._step
def stopped(job, state):
    loss = step(job, state)
    if state.step == 7:
        os.kill(os.getpid(), signal.SIGINT)
    return loss
loop._step = stopped
signal.signal(signal.SIGINT, signal.default_int_handler)
from edge_adapt.cloud.cli import main
main()
"""


def test_an_interrupted_training_resumes_with_the_same_numbers(stripes: Path, tmp_path: Path) -> None:
    values = {
        **SMALL,
        **{f"data.{name}": value for name, value in GRAY.items()},
        "architecture.norm": "batch",
    }
    backbone = values.pop("backbone")
    pairs = [f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in values.items()]
    changes = [word for pair in pairs for word in ("--set", pair.replace("=batch", '="batch"'))]
    command = [backbone, "--data", f"folder={stripes}", *changes]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = pretrain_command(*command, "--out", whole)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{whole / 'weights.safetensors'}: ")
    call = [sys.executable, "-c", STOPPED, "pretrain", *command, "--out", str(parts)]
    first = subprocess.run(call, capture_output=True, text=True, check=False)
    assert first.returncode == 130, first.stderr
    assert "--resume" in first.stderr
    assert not (parts / "weights.safetensors").exists()
    result = pretrain_command(*command, "--out", parts, "--resume")
    assert result.exit_code == 0, result.stderr
    a, b = (load_file(path / "weights.safetensors") for path in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (whole / "metrics.csv").read_text() == (parts / "metrics.csv").read_text()
    changed = pretrain_command(*command, "--out", parts, "--resume", "--set", "epochs=4")
    assert changed.exit_code == 2
    assert "epochs: 3 -> 4" in changed.stderr
    again = pretrain_command(*command, "--out", parts)
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_the_weights_start_a_network_and_other_shapes_are_refused(
    settings: Pretraining, tmp_path: Path
) -> None:
    group = Pretraining(**{**vars(settings), "architecture": {"norm": "group"}, "epochs": 1})
    weights = pretrain(group, tmp_path / "out").weights
    module = build_backbone("conv4", SPEC.shape, 5, 1, {"norm": "group"})
    meta = with_weights(Meta(dict(module.named_parameters()), {}), weights)
    found = load_file(weights)
    assert all(torch.equal(meta.learned[name], value) for name, value in found.items())
    assert set(meta.learned) - set(found) == {"fc.weight", "fc.bias"}
    wider = build_backbone("conv4", (3, 16, 16), 5, 1, {"norm": "group"})
    with pytest.raises(ConfigError, match="the network has"):
        with_weights(Meta(dict(wider.named_parameters()), {}), weights)


def test_whole_crops_are_the_images_and_mirrored_ones_are_turned_left_to_right(settings: Pretraining) -> None:
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 1, 16, 16)).astype(np.float32))
    whole = Pretraining(**{**vars(settings), "smallest_crop": 1.0})
    np.testing.assert_allclose(crops(images, 16, whole, np.random.default_rng(0)), images, atol=1e-5)
    mirrored = Pretraining(**{**vars(whole), "mirror": True})
    found = crops(images, 16, mirrored, np.random.default_rng(0))
    straight = (found - images).abs().flatten(1).amax(1) < 1e-5
    turned = (found - images.flip(3)).abs().flatten(1).amax(1) < 1e-5
    assert bool((straight ^ turned).all())
    assert 10 < int(turned.sum()) < 30


def test_a_crop_is_a_window_of_its_image_of_the_allowed_area(settings: Pretraining) -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    images = torch.stack([rows, columns]).expand(200, 2, 64, 64)
    found = crops(images, 16, settings, np.random.default_rng(0))
    # a linear ramp tells where each pixel of a crop lies: pixel centres are 1/16 of the window apart
    heights = (found[:, 0, -1, 0] - found[:, 0, 0, 0]) * 16 / 15 / (64 / 63)
    widths = (found[:, 1, 0, -1] - found[:, 1, 0, 0]) * 16 / 15 / (64 / 63)
    area = heights * widths / 4
    assert float(area.max()) <= 1 + 1e-4
    assert float(area.min()) > settings.smallest_crop * 0.8  # where the window is cut at the image's edge
    assert float(area.max() - area.min()) > 0.3
    assert float(found.abs().max()) <= 1


def test_no_image_is_learned_and_held_out_and_an_epoch_shows_every_image_once() -> None:
    learned, held = split(dataset(), 0.25, seed=3)
    pairs = [{tuple(row) for row in part.rows.tolist()} for part in (learned, held)]
    assert not pairs[0] & pairs[1]
    assert len(pairs[0] | pairs[1]) == 30
    assert sorted(held.rows[:, 0].tolist()) == [0, 0, 1, 1, 2, 2]
    orders = [order_of(learned, 3, epoch).tolist() for epoch in (0, 1)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(learned.rows.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"smallest_crop": 0.0}, r"smallest_crop must be in \(0, 1\], got 0.0"),
        ({"backbone": "mlp"}, "backbone must be one of .*, got 'mlp'"),
        ({"precision": "int8"}, "precision must be one of float32, bfloat16, got 'int8'"),
        ({"learning_rate": -1.0}, r"learning_rate must be above 0, got -1.0"),
        ({"data": DataConfig("sinusoid")}, "data.name: pre-training classifies images, sinusoid has none"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: Pretraining, change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pretraining(**{**vars(settings), **change})


def test_too_few_images_and_unknown_settings_are_refused_before_training(
    settings: Pretraining, stripes: Path, tmp_path: Path
) -> None:
    large = Pretraining(**{**vars(settings), "batch": 10_000})
    with pytest.raises(ConfigError, match="batch: 10000 asked for, but there are"):
        pretrain(large, tmp_path / "out")
    single = Dataset("own", "train", (np.zeros((1, 16, 16, 1), np.uint8),), ("a",), SPEC)
    with pytest.raises(ConfigError, match="class a: expected 2 images or more, got 1"):
        split(single, 0.1, 0)
    result = pretrain_command("conv4", "--data", "glyphs", "--out", tmp_path / "o", "--set", "steps=3")
    assert result.exit_code == 2
    assert "steps is no setting" in result.stderr
    assert not (tmp_path / "o").exists()


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_saved(
    settings: Pretraining, tmp_path: Path
) -> None:
    wild = Pretraining(**{**vars(settings), "learning_rate": 1e30})
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at step .*; nothing was saved; start again"
    ):
        pretrain(wild, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.toml"]


def test_weights_that_became_infinite_are_not_saved(settings: Pretraining, tmp_path: Path) -> None:
    """One step makes an epoch, so that its weights would be saved before another loss could show what they are."""
    wild = Pretraining(**{**vars(settings), "learning_rate": 1e38, "weight_decay": 1e4, "batch": 20})
    with pytest.raises(
        TrainingError, match=r"weights are no numbers at step 1; nothing was saved; start again"
    ):
        pretrain(wild, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.toml"]


def test_a_start_that_was_cut_short_before_its_first_checkpoint_may_be_started_again(
    settings: Pretraining, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text("cut short")
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"cut short")
    one = Pretraining(**{**vars(settings), "epochs": 1})
    assert pretrain(one, tmp_path).weights.is_file()


def test_a_training_whose_images_or_cache_moved_goes_on(
    settings: Pretraining, stripes: Path, tmp_path: Path
) -> None:
    shutil.copytree(stripes, tmp_path / "images")
    before = Pretraining(**{**vars(settings), "epochs": 1})
    done = pretrain(before, tmp_path / "out")
    moved = DataConfig(
        "folder", str(tmp_path / "images"), **GRAY, cache_size="20kB", cache=str(tmp_path / "c")
    )
    after = Pretraining(**{**vars(before), "data": moved})
    assert pretrain(after, tmp_path / "out", resume=True) == done


def test_half_precision_stays_close_to_single(settings: Pretraining, tmp_path: Path) -> None:
    half = Pretraining(**{**vars(settings), "precision": "bfloat16", "epochs": 1})
    full = Pretraining(**{**vars(settings), "epochs": 1})
    a, b = (load_file(pretrain(each, tmp_path / name).weights) for name, each in (("h", half), ("f", full)))
    cosines = [F.cosine_similarity(a[n].flatten(), b[n].flatten(), 0) for n in a if a[n].ndim == 4]
    assert cosines
    assert min(map(float, cosines)) > 0.9
