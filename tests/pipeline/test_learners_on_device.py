"""Runs of learners become bundles, and the device says what the cloud says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud import AmortizedRun, load_run, train
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.tasks import Stored, Task
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import default_engine, engine_named
from edge_adapt.edge.verify import verify
from edge_adapt.export.cli import main
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

RECIPE = """
summary = "test: learners on noise"
backbone = "conv4"
[data]
name = "folder"
channels = 1
size = 16
mean = [0.5]
std = [0.25]
[task]
ways = 3
shots = 2
queries = 2
[method]
name = "protonets"
[lite]
h = 3
[train]
outer_steps = 1
tasks_per_step = 1
validate_every = 1
validation_tasks = 2
test_tasks = 2
"""
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "protonets": ("protonets", {}, 3),
    "cnaps": ("cnaps", {}, 5),
    "simple-cnaps": ("simple-cnaps", {}, 7),
    "identity": ("simple-cnaps", {"method.covariance": "identity"}, 3),
    "unfilmed": ("cnaps", {"method.film": False}, 3),
}


def noise(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 1), np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in three splits, a recipe, and the weights of an extractor whose BatchNorm has statistics."""
    home = tmp_path_factory.mktemp("learners")
    for split, kinds in {"train": range(4), "val": range(4, 7), "test": range(7, 10)}.items():
        for kind in kinds:
            (home / "data" / split / f"kind{kind}").mkdir(parents=True)
            for number, image in enumerate(noise(5, kind)):
                Image.fromarray(image[..., 0]).save(home / "data" / split / f"kind{kind}" / f"{number}.png")
    (home / "recipe.toml").write_text(RECIPE)
    module = build_backbone("conv4", (1, 16, 16), 3, 7, {"norm": "batch"}).train()
    for seed in range(3):
        module(torch.from_numpy(noise(32, seed)).permute(0, 3, 1, 2).float() / 255)
    state = {name: value for name, value in module.state_dict().items() if not name.startswith("fc.")}
    save_file(state, home / "weights.safetensors")
    return home


@pytest.mark.parametrize("case", CASES)
def test_the_device_gives_the_clouds_logits(case: str, home: Path, tmp_path: Path) -> None:
    name, changes, classes = CASES[case]
    changes = {"method.name": name, "train.initial_weights": str(home / "weights.safetensors"), **changes}
    changes["architecture.norm"] = "batch"
    train(str(home / "recipe.toml"), tmp_path / "run", changes, data=home / "data")
    run = load_run(tmp_path / "run")
    assert isinstance(run, AmortizedRun)
    more = [] if classes == 3 else ["--classes", str(classes)]
    assert main([str(tmp_path / "run"), "-o", str(tmp_path / "bundle"), *more]) == 0
    bundle = Bundle.open(tmp_path / "bundle")
    manifest = bundle.files.manifest
    assert (manifest.kind, manifest.classes, manifest.samples) == (
        name.replace("protonets", "prototypes"),
        classes,
        6,
    )
    assert manifest.provenance["recipe"] == run.result["recipe"]
    assert verify(bundle.files, engine_named(default_engine(), bundle.files.path))["passed"]
    images, queries, labels = noise(9, 20), noise(4, 21), np.array([0, 1, 2, 0, 0, 1, 0, 1, 0])
    support, query = (Stored(torch.from_numpy(run.spec.preprocess(part))) for part in (images, queries))
    task = Task(support, torch.from_numpy(labels), query, torch.zeros(4, dtype=torch.int64), 3, (0, 0))
    expected = torch.log_softmax(run.learner.logits(run.meta, task).double(), 1).numpy()
    found = np.log(bundle.adapt(images, labels).predict(queries))
    tolerance = 2e-5 * max(1.0, float(np.abs(expected).max()))
    assert np.allclose(found, expected, rtol=0, atol=tolerance)
    assert np.ptp(expected, axis=0).max() > 20 * tolerance, "the queries must differ"
