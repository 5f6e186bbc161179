"""K steps in torch, in the planned engine and in stock onnxruntime on training.onnx: one set of numbers.

All run under the channel selections that torch made in float64, so that a tie decided by rounding can neither
hide nor fake a difference (that the selections agree where they are clear is tested in tests/export).
The images are glyphs with noise: on a flat background a whole region of a map has one value, and where that
value rounds to the other side of a ReLU's kink, the region's gradient goes with it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.cloud import TrainedRun
from edge_adapt.cloud.inner.device import Adapted, adapt, query_logits
from edge_adapt.cloud.outer import Meta
from edge_adapt.cloud.tasks import Episode, EpisodeSampler, load_dataset
from edge_adapt.edge.bundle import write_tensors
from edge_adapt.edge.engines import Hooks, ReferenceEngine
from edge_adapt.edge.inputs import SupportSet, from_arrays, query_from_arrays
from edge_adapt.edge.plan import search_plan
from edge_adapt.edge.program import Program
from edge_adapt.export.adaptation import adaptation, tensors
from edge_adapt.export.bundle import external
from edge_adapt.export.from_run import source_of_run
from edge_adapt.export.onnx_graph import training_graph
from edge_adapt.export.passes import RecordedSelections, apply

SHOTS, WAYS, TOLERANCE = 2, 5, 1e-4
SCRIPT = Path(__file__).parents[1] / "export" / "ort_script.py"
FROZEN = {"dense": (), "sparse": ("conv1", "norm1", "conv2", "norm3")}
LATER_ONLY = ("conv3",)  # in the sparse plan: updated from the second step on


@dataclass(frozen=True)
class Case:
    """One run with some step sizes set to zero, one task, and what torch makes of it in float64."""

    run: TrainedRun
    episode: Episode
    support: SupportSet
    truth: Adapted
    logits: np.ndarray
    alpha: np.ndarray

    @property
    def keeps(self) -> dict[str, np.ndarray]:
        """Recorded selections by program input, (K, N, C); all ones where a step does not run the module."""
        names = sorted({key for step in self.truth.kept for key in step})
        return {f"keep::{n.rsplit('.', 1)[0]}::{n.rsplit('.', 1)[1]}": self._kept(n) for n in names}

    def _kept(self, key: str) -> np.ndarray:
        width = next(step[key].shape[-1] for step in self.truth.kept if key in step)
        empty = torch.ones((1, len(self.support), width), dtype=torch.bool)
        rows = [step.get(key, empty)[0] for step in self.truth.kept]
        return torch.stack(rows).numpy().astype(np.float32)


@pytest.fixture(scope="module", params=FROZEN)
def case(request: pytest.FixtureRequest, trained: TrainedRun) -> Case:
    alpha = trained.alpha.clone()
    for index, layer in enumerate(trained.layers):
        alpha[:, index] *= layer.name not in FROZEN[request.param]
        alpha[0, index] *= request.param == "dense" or layer.name not in LATER_ONLY
    run = replace(trained, meta=Meta(trained.meta.learned, {"alpha": alpha}))
    dataset = load_dataset("glyphs", "test")
    clean = EpisodeSampler(dataset, ways=WAYS, shots=SHOTS, queries=4, seed=3).episode(0)
    episode = replace(clean, support_x=noisy(clean.support_x, 0), query_x=noisy(clean.query_x, 1))
    support = from_arrays(episode.support_x, episode.support_y, run.spec)
    x = torch.from_numpy(run.spec.preprocess(episode.support_x)).double()[None]
    y = torch.from_numpy(episode.support_y)[None]
    query = torch.from_numpy(run.spec.preprocess(episode.query_x)).double()[None]
    network = run.parts.network
    truth = adapt(network, run.parts.method.config, run.meta.to(torch.float64), x, y)
    return Case(run, episode, support, truth, query_logits(network, truth, query)[0].numpy(), alpha.numpy())


def noisy(images: np.ndarray, seed: int) -> np.ndarray:
    """Up to 40 grey levels on top of every pixel of glyphs dimmed to make room."""
    return images // 8 * 6 + np.random.default_rng(seed).integers(0, 40, images.shape, np.uint8)


@dataclass(frozen=True)
class Values:
    """Weights of a source for the engine."""

    tensors: Mapping[str, np.ndarray]

    def mapped(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def copy(self, name: str) -> np.ndarray:
        return self.tensors[name].copy()

    def give_back(self) -> None:
        """Nothing is mapped."""


def recorded_program(case: Case) -> tuple[Program, dict[str, np.ndarray]]:
    source = source_of_run(case.run)
    program = adaptation(source)
    return apply(RecordedSelections(), program).program, tensors(source, program)


def query_logits_of_engine(case: Case, program: Program, values: Mapping[str, np.ndarray]) -> np.ndarray:
    query = query_from_arrays(case.episode.query_x, case.run.spec)
    return ReferenceEngine().predict(program, Values(values), query)


@pytest.mark.parametrize("storage", ["dense", "sparse"])
def test_the_planned_engine_gives_torchs_logits_at_any_micro_batch(case: Case, storage: str) -> None:
    program, values = recorded_program(case)
    before = query_logits_of_engine(case, program, values)
    results = []
    for micro_batch in (1, 5, len(case.support)):
        plan = search_plan(
            program, case.alpha, len(case.support), len(case.alpha), micro_batch=micro_batch, storage=storage
        )
        done = ReferenceEngine().adapt(
            program, plan, Values(values), case.support, hooks=Hooks(selections=case.keeps)
        )
        np.testing.assert_allclose(done.losses, case.truth.losses[0].numpy(), atol=TOLERANCE)
        results.append(query_logits_of_engine(case, program, {**values, **done.updated}))
        np.testing.assert_allclose(results[-1], case.logits, atol=TOLERANCE)
    assert max(np.abs(one - results[0]).max() for one in results) < 1e-5
    assert np.abs(results[0] - before).max() > 100 * TOLERANCE  # the steps did something


def write_task(case: Case, path: Path, values: Mapping[str, np.ndarray]) -> None:
    """The input file of ort_script.py."""
    spec, layers = case.run.spec, {layer.name: i for i, layer in enumerate(case.run.layers)}
    columns = {
        name: case.alpha[:, layers[_layer(name)]] for name in values if name.endswith((".weight", ".bias"))
    }
    live = {name: column for name, column in columns.items() if column.any()}
    np.savez(
        path,
        images=spec.preprocess(case.episode.support_x),
        labels=case.episode.support_y,
        class_mask=np.ones(WAYS, np.float32),
        query=spec.preprocess(case.episode.query_x),
        micro_batches=np.array([1, 5, len(case.support)]),
        **{f"param::{name}": values[name] for name in live},
        **{f"alpha::{name}": column for name, column in live.items()},
        **case.keeps,
    )


def _layer(parameter: str) -> str:
    return parameter.rsplit(".", 1)[0]


def run_script(python: str | Path, case: Case, folder: Path) -> dict[str, Any]:
    program, values = recorded_program(case)
    write_tensors(folder / "weights.safetensors", values)
    places = external(folder / "weights.safetensors")
    model = training_graph(program, places, source_of_run(case.run).updated_layers)
    (folder / "training.onnx").write_bytes(model.SerializeToString())
    write_task(case, folder / "task.npz", values)
    arguments = [folder / name for name in ("training.onnx", "task.npz", "result.npz")]
    subprocess.run([str(python), str(SCRIPT), *map(str, arguments)], check=True, capture_output=True)
    return dict(np.load(folder / "result.npz"))


def check_script(case: Case, result: Mapping[str, Any]) -> None:
    for micro_batch in (1, 5, len(case.support)):
        np.testing.assert_allclose(result[f"{micro_batch}|logits"], case.logits, atol=TOLERANCE)
        losses = result[f"{micro_batch}|loss"].ravel()
        np.testing.assert_allclose(losses, case.truth.losses[0].numpy(), atol=TOLERANCE)
        np.testing.assert_allclose(result[f"{micro_batch}|logits"], result["1|logits"], atol=1e-5)


def test_training_onnx_in_the_current_onnxruntime_gives_torchs_logits(case: Case, tmp_path: Path) -> None:
    check_script(case, run_script(sys.executable, case, tmp_path))


def test_training_onnx_in_onnxruntime_1_19_gives_torchs_logits(
    case: Case, tmp_path: Path, old_onnxruntime: Path
) -> None:
    result = run_script(old_onnxruntime, case, tmp_path)
    assert str(result["version"]) == "1.19.2"
    check_script(case, result)
