"""Every model of the zoo: K steps in torch, reference engine, stock onnxruntime and ORT training agree.

Plain modules with step sizes of their own for every layer and step, some of them zero; small variants.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from edge_adapt.cloud.models import BACKBONES
from edge_adapt.edge import Bundle
from edge_adapt.edge.plan import search_plan
from edge_adapt.export import export_bundle
from edge_adapt.export.converters import fold_batch_norm
from edge_adapt.export.coverage import coverage_report
from edge_adapt.export.ort_training import generate
from edge_adapt.export.ort_training.artifacts import write_request
from numpy.typing import NDArray

from .zoo import SAMPLES, STEPS, ZOO, Task, adapted_logits, module_of, step_sizes, task_of

SCRIPT = Path(__file__).with_name("zoo_ort_training.py")
TOLERANCE, EXPORT_SECONDS = 1e-4, 60
BATCH_NORM = ("conv4", "motion-cnn")
VARIANTS = (*ZOO, *(f"{name}, batch norm" for name in BATCH_NORM))


@dataclass(frozen=True)
class Exported:
    """One model's bundle, what export took, its task, torch's query logits before and after K steps."""

    path: Path
    seconds: float
    task: Task
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    def check(self, logits: NDArray[np.float32]) -> None:
        error = np.abs(logits - self.after).max() / np.abs(self.after).max()
        assert error < TOLERANCE


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports a variant on first use."""
    home = tmp_path_factory.mktemp("zoo")
    return cache(lambda variant: _export(variant, home))


def _export(variant: str, home: Path) -> Exported:
    name, _, batch_norm = variant.partition(", ")
    module = module_of(name, norm="batch") if batch_norm else module_of(name)
    task, alpha = task_of(ZOO[name].shape), step_sizes(name, module)
    started = time.perf_counter()
    path = export_bundle(module, home / variant, example_input=task.x, step_size=alpha, steps=STEPS)
    seconds = time.perf_counter() - started
    columns = {layer.name: alpha[:, layer.index] for layer in Bundle.open(path).files.program.layers}
    frozen = {layer: np.zeros_like(column) for layer, column in columns.items()}
    plain = fold_batch_norm(module)[0] if batch_norm else module
    before, after = (adapted_logits(plain, sizes, task) for sizes in (frozen, columns))
    return Exported(path, seconds, task, before, after)


def test_the_whole_zoo_is_here() -> None:
    assert ZOO.keys() == BACKBONES.keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_export_is_quick_and_its_training_graph_valid(
    variant: str, exported: Callable[[str], Exported]
) -> None:
    made = exported(variant)
    assert made.seconds < EXPORT_SECONDS
    onnx.checker.check_model(str(made.path / "training.onnx"), full_check=True)
    operators = {node.domain for node in onnx.load(made.path / "training.onnx").graph.node}
    assert operators == {""}


@pytest.mark.parametrize("variant", VARIANTS)
def test_engines_adapt_as_torch_does(variant: str, exported: Callable[[str], Exported]) -> None:
    made = exported(variant)
    x, y, query = made.task
    bundle = Bundle.open(made.path)
    program, alpha = bundle.files.program, bundle.files.weights.copy("alpha")
    moved = np.abs(made.after - made.before).max()
    assert moved > 100 * TOLERANCE * np.abs(made.after).max()  # the steps did something
    for micro_batch, engines in {1: ("reference",), SAMPLES: ("reference", "onnxruntime")}.items():
        plan = search_plan(program, alpha, SAMPLES, STEPS, micro_batch=micro_batch, storage="dense")
        for engine in engines:
            made.check(bundle.adapt(x, y, plan=plan, engine=engine).logits(query))


@pytest.fixture(scope="module")
def ort_training_results(
    exported: Callable[[str], Exported], ort_training: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Every variant's artifacts made and run by one process in the other environment."""
    home = tmp_path_factory.mktemp("ort-training")
    for variant in VARIANTS:
        made, folder = exported(variant), home / variant
        folder.mkdir()
        files = Bundle.open(made.path).files
        values = {tensor.name: files.weights.copy(tensor.name) for tensor in files.program.with_role("param")}
        updated = frozenset(
            layer.name for layer in files.program.layers if files.weights.copy("alpha")[:, layer.index].any()
        )
        write_request(files.program, values, updated, folder)
        np.savez(folder / "task.npz", **made.task._asdict())
        (folder / "bundle").symlink_to(made.path)
    command = [str(ort_training), str(SCRIPT), generate.__file__, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return home


@pytest.mark.parametrize("variant", VARIANTS)
def test_ort_training_adapts_as_torch_does(
    variant: str, exported: Callable[[str], Exported], ort_training_results: Path
) -> None:
    error = ort_training_results / variant / "error.txt"
    assert not error.exists(), error.read_text()
    exported(variant).check(np.load(ort_training_results / variant / "logits.npy"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_we_write_we_read(variant: str, exported: Callable[[str], Exported]) -> None:
    report = coverage_report(exported(variant).path / "eval.onnx")
    assert report.refusal is None, report.text
