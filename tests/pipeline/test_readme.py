"""The README's walk, run as it is written, on a folder of photos; and the demo, cut short."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.cloud.tasks import load_dataset
from edge_adapt.edge import Bundle
from numpy.typing import NDArray
from PIL import Image
from torch import nn

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CLASSES, PER_CLASS, SUPPORT = 34, 20, 5


def photo(glyph: NDArray[np.uint8], ink: NDArray[np.float64]) -> Image.Image:
    """A glyph in colour on light paper, 48x40 pixels RGB."""
    paper = np.array([235.0, 230.0, 220.0])
    share = glyph / 255.0
    return Image.fromarray(np.uint8(paper * (1 - share) + ink * share)).resize((48, 40))


def write_class(folder: Path, glyphs: NDArray[np.uint8], rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    for index, glyph in enumerate(glyphs):
        photo(glyph, rng.uniform(0, 90, 3)).save(folder / f"{index:03}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ of 34 classes; new/ and query/ of five others."""
    home, rng = tmp_path_factory.mktemp("walk"), np.random.default_rng(0)
    known, fresh = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
    for index in range(CLASSES):
        write_class(home / "photos" / f"class{index:02}", known.classes[index][:PER_CLASS], rng)
    for index in range(0, 50, 10):
        glyphs = fresh.classes[index]
        write_class(home / "new" / f"sign{index}", glyphs[:SUPPORT], rng)
        write_class(home / "query" / f"sign{index}", glyphs[SUPPORT:PER_CLASS], rng)
    return home


def run(script: str, home: Path) -> str:
    """Run shell lines with this environment's commands on the path; fail with what they printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=home, env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def own_module() -> nn.Module:
    """A network with everything that used to be in the way: batch norm, a squeeze, another activation."""
    parts: dict[str, nn.Module] = {
        "conv": nn.Conv2d(3, 16, 3, 2, 1), "norm": nn.BatchNorm2d(16), "act": nn.SiLU(),
        "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(16, 5),
    }  # fmt: skip
    return nn.Sequential(OrderedDict(parts))


@contextmanager
def chdir(path: Path) -> Iterator[None]:
    here = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(here)


@pytest.mark.slow
def test_the_walk_runs_as_written(home: Path) -> None:
    assert len(SHELL) == 3
    for block in SHELL[:2]:
        run(block, home)
    assert (home / "arena.png").stat().st_size > 10_000
    assert (home / "merged" / "model.onnx").is_file()
    report = json.loads((home / "adapted" / "report.json").read_text())
    assert report["kept"] in (True, None)
    assert report["planned_peak_bytes"] <= 1_000_000
    told = json.loads(run("edge-adapt predict adapted --bundle bundle --input query --json", home))
    assert told["accuracy"] > 0.5  # chance is 0.2
    images = np.stack([np.asarray(Image.open(f).resize((32, 32))) for f in sorted(home.glob("new/*/*.png"))])
    labels = np.repeat(np.arange(5), SUPPORT)
    assert len(PYTHON) == 2
    with chdir(home):
        exec(compile(PYTHON[0], "README.md", "exec"), {"images": images, "labels": labels})
        exec(compile(PYTHON[1], "README.md", "exec"), {"module": own_module()})
    assert Bundle.open(home / "own").adapt(images, labels).report["steps"] == 5
    shutil.copytree(home / "merged", home, dirs_exist_ok=True)  # model.onnx and its weights
    assert "operations" in run(SHELL[2], home)
    assert (home / "own-adapted" / "delta.safetensors").is_file()


@pytest.mark.slow
def test_a_short_demo_leaves_everything_it_promises(tmp_path: Path) -> None:
    short = {
        "outer_steps": 4,
        "validate_every": 4,
        "validation_tasks": 4,
        "test_tasks": 4,
        "tasks_per_step": 2,
    }
    settings = [word for name, value in short.items() for word in ("--set", f"train.{name}={value}")]
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(tmp_path / "demo"), *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy after, unseen script" in done.stdout
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    assert 0 <= summary["accuracy_before"] <= 1
    assert 0 <= summary["accuracy_after"] <= 1
    assert summary["measured_peak_bytes"] is None or (
        summary["measured_peak_bytes"] <= summary["planned_peak_bytes"] + 2**21
    )
    assert summary["planned_peak_bytes"] > summary["dynamic_bytes"] > 0
    assert summary["seconds"] > 0
    for name in ("bundle/manifest.json", "adapted/delta.safetensors", "support.npz", "query.npz"):
        assert (tmp_path / "demo" / name).is_file()
    for name in ("arena.png", "predictions.png"):
        with Image.open(tmp_path / "demo" / name) as picture:
            assert min(picture.size) > 200


def test_the_two_commands_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert "make demo" in README
    assert "make test" in README


def test_every_page_and_picture_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link
