"""What surrounds a loss: what a support set brings, what manifests may say, what plans count."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from edge_adapt.edge import Bundle, BundleError
from edge_adapt.edge.bundle.manifest import LAYER_KINDS
from edge_adapt.edge.inputs.kinds import KINDS
from edge_adapt.edge.losses import LOSSES

from .bundles import rewrite_manifest, write_files
from .dense import STEPS, TASKS, answers, dense_program, dense_weights, samples, write_dense_bundle


@pytest.mark.parametrize("name", TASKS)
def test_the_program_reads_exactly_what_a_support_set_brings(name: str) -> None:
    program, loss = dense_program(TASKS[name]), LOSSES[TASKS[name].loss]
    loss.check(program, "here")
    given, names = loss.answers(program).read("here", answers(TASKS[name]))
    assert set(given) == set(loss.parts) <= set(program.inputs)
    assert bool(names) == loss.classifies
    blank, _ = loss.answers(program).blank()
    for part, values in given.items():
        tensor = program.tensors[program.inputs[part]]
        assert values.dtype == blank[part].dtype == tensor.dtype
        assert values.shape == tensor.concrete(10)
        assert blank[part].shape == tensor.concrete(1)


def test_a_manifest_with_the_loss_of_another_program_is_refused(tmp_path: Path) -> None:
    path = write_dense_bundle(tmp_path / "bundle", TASKS["numbers"])
    rewrite_manifest(path, loss="categorical-policy-gradient")
    with pytest.raises(BundleError, match=r"needs CategoricalPolicyGradient .* has MeanSquaredError"):
        Bundle.open(path)
    rewrite_manifest(path, loss="hinge")
    with pytest.raises(BundleError, match="'loss': expected one of softmax-cross-entropy, mean-squared"):
        Bundle.open(path)


def test_a_manifest_with_the_input_of_another_program_is_refused(tmp_path: Path) -> None:
    path = write_dense_bundle(tmp_path / "bundle", TASKS["numbers"])
    rewrite_manifest(path, input=TASKS["classes"].spec.to_json())
    with pytest.raises(BundleError, match=r"input of shape \[3, 8\], but program\.json has \['N', 5\]"):
        Bundle.open(path)


@pytest.mark.parametrize("name", TASKS)
def test_the_plan_counts_every_byte_of_the_samples_and_what_is_said_about_them(
    tmp_path: Path, name: str
) -> None:
    task, given = TASKS[name], answers(TASKS[name])
    plan = Bundle.open(write_dense_bundle(tmp_path / "bundle", task)).plan()
    kept = 10 * 4 * prod(task.spec.shape) + sum(array.nbytes for array in given.values())
    batch = sum(array[: plan.micro_batch].nbytes for array in given.values()) + 4 * plan.micro_batch
    mask = 4 * task.outputs[-1] if name == "classes" else 0
    assert plan.terms["input"] == kept + batch + mask


def test_the_format_description_names_every_loss_layer_kind_and_input_kind() -> None:
    text = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text()
    for loss in LOSSES.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{loss.name}`"))
        assert all(f"`{part}`" in row for part in loss.parts)
        assert row.endswith(f"| {loss.operation} |")
    assert all(f'"{kind}"' in text for kind in LAYER_KINDS)
    assert all(f"\n| `{kind}` |" in text for kind in KINDS)


def test_label_smoothing_is_trained_with_but_not_reported(tmp_path: Path) -> None:
    task, share = TASKS["classes"], 0.2
    program = dense_program(task)
    (loss,) = program.sections["loss"]
    smoothed = replace(loss, attrs={"label_smoothing": share})
    program = replace(program, sections={**program.sections, "loss": (smoothed,)})
    fields = {"name": "smooth", "loss": task.loss, "input": task.spec.to_json()}
    bundle = Bundle.open(write_files(tmp_path / "bundle", program, dense_weights(task), {}, fields))
    values, labels = samples(task), answers(task)["labels"]
    before = np.log(bundle.predict(values))
    model = bundle.adapt(values, labels)
    each, plain = -before.mean(axis=1), -before[np.arange(len(labels)), labels]
    assert model.report["losses"][0] == pytest.approx(((1 - share) * plain + share * each).mean(), abs=1e-5)
    after = np.log(model.predict(values))
    assert model.report["loss"] == pytest.approx(-after[np.arange(len(labels)), labels].mean(), rel=1e-12)
    assert len(model.report["losses"]) == STEPS
