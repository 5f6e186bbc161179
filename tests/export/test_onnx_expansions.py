"""Every expansion into standard operators, in stock onnxruntime and float32, against float64 truths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export.onnx_graph import IR_VERSION, OPSET, build_graph
from edge_adapt.export.ops import RULES
from edge_adapt.export.ops.table import with_table
from edge_adapt.export.source import AttentionSettings
from torch import nn

from .cases import CASES, built, case, example, stack
from .ort import run_model, run_program
from .truth import truth

TOLERANCE = 1e-5
DOCS = Path(__file__).parents[2] / "docs" / "program.md"


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Float32 rounding relative to the largest entry of each tensor."""
    assert expected
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[name], value, atol=TOLERANCE * scale, err_msg=name)


@pytest.mark.parametrize("attended", [False, True], ids=["plain", "attention"])
@pytest.mark.parametrize("name", CASES)
def test_loss_logits_and_gradients_are_those_of_autograd(name, attended):
    one = case(name, attended)
    expected = truth(one.module, one.images, one.labels, attention=one.attention)
    logits = one.program.outputs["logits"]
    found = run_program(one, ["loss", logits, *one.gradients, *expected.gammas])
    assert_close(
        found,
        {**expected.grads, **expected.gammas, "loss": np.float64(expected.loss), logits: expected.logits},
    )


@pytest.mark.parametrize("cap", [None, 1, 4])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_channel_selection_is_that_of_the_algorithm(rho, cap):
    settings = AttentionSettings(rho, rho, cap)
    module = built("conv-norm")
    one = example(module, (2, 5, 5), attended=True, settings=settings, samples=12)
    expected = truth(module, one.images, one.labels, attention=one.attention, settings=settings)
    assert_close(run_program(one, expected.gammas), expected.gammas)


def test_among_equal_channels_the_lower_index_falls_first():
    torch.manual_seed(5)
    module = stack(a=nn.Conv2d(8, 2, 3), flatten=nn.Flatten(), head=nn.Linear(2, 2))
    one = example(module, (8, 3, 3), attended=True, settings=AttentionSettings(0.3, 0.0))
    zeros = {
        f"attention::a::fw::{part}": np.zeros_like(getattr(one.attention["a"]["fw"], part))
        for part in ("w1", "b1", "w2", "b2")
    }
    gamma = run_program(one, ["fw::a"], **zeros)["fw::a"]
    np.testing.assert_allclose(gamma, np.tile([0, 0, 0, 1.6, 1.6, 1.6, 1.6, 1.6], (4, 1)), rtol=1e-6)


def test_ties_in_a_window_go_to_the_first_maximum():
    torch.manual_seed(1)
    module = stack(
        a=nn.Conv2d(1, 2, 1), pool=nn.MaxPool2d(3, 2, 1), flatten=nn.Flatten(), head=nn.Linear(18, 3)
    )
    module.a.weight.data = torch.ones_like(module.a.weight)
    tied = example(module, (1, 5, 6), attended=False)
    images = np.round(tied.images)
    found = run_program(tied, tied.gradients, images=images)
    assert_close(found, truth(module, images, tied.labels).grads)


def test_masked_classes_and_sample_weights():
    plain = case("group-norm", attended=False)
    labels, mask, weight = np.array([0, 2, 2, 0]), np.array([1.0, 0, 1]), np.array([0.1, 0.3, 0.05, 0.2])
    expected = truth(plain.module, plain.images, labels, sample_weight=weight, class_mask=mask)
    inputs = {"labels": labels, "class_mask": mask, "sample_weight": weight}
    assert_close(
        run_program(plain, ["loss", *plain.gradients], **inputs),
        {**expected.grads, "loss": np.float64(expected.loss)},
    )


@pytest.mark.parametrize("samples", [1, 3])
def test_one_graph_serves_every_batch_size(samples):
    one = case("conv-groups", attended=True)
    inputs = {
        "images": one.images[:samples],
        "labels": one.labels[:samples],
        "sample_weight": np.full(samples, 0.25),
    }
    expected = truth(
        one.module,
        inputs["images"],
        inputs["labels"],
        sample_weight=inputs["sample_weight"],
        attention=one.attention,
    )
    assert_close(run_program(one, one.gradients, **inputs), expected.grads)


def test_the_update_is_expanded_too():
    one = case("fc-chain", attended=False)
    names = [f"updated::{param}" for layer in one.program.layers for param in layer.params]
    values = one.values(alpha=np.array([[0.1, 0.2], [0.3, 0.4]]))
    model = build_graph(one.program, {}, {name: name for name in names}, adjustable=True)
    session_feeds = {**values, "step": np.array(1)}
    expected = interpret(one.program, values, names, np.float64, step=1)
    assert_close(run_model(model, session_feeds), expected)


def test_only_standard_operators_of_one_opset():
    one = case("residual", attended=True)
    model = build_graph(one.program, {}, {name: name for name in ("loss", *one.gradients)}, adjustable=True)
    assert model.ir_version == IR_VERSION == 8
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions


def test_the_documented_table_is_what_the_rules_say():
    text = DOCS.read_text("utf-8")
    assert with_table(text) == text, "run: python -m edge_adapt.export.ops.table docs/program.md"
    assert all(f"| {kind} | {rule.signature} |" in text and rule.meaning for kind, rule in RULES.items())
