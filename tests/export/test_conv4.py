"""4Conv at 28 and 84 pixels: one step of the program and of training.onnx against torch, with attention."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from edge_adapt.edge.program import Program
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export.adaptation import adaptation, tensors
from edge_adapt.export.onnx_graph import build_graph, training_graph
from edge_adapt.export.passes import RecordedSelections, apply
from edge_adapt.export.source import Source

from .conv4 import LAYERS, WAYS, blobs, conv4_source
from .ort import run_model
from .truth import Truth, truth

SIZES = {28: 1, 84: 3}
MARGIN = 1e-4


@cache
def prepared(size: int) -> tuple[Source, Program]:
    source = conv4_source(size)
    return source, adaptation(source)


@cache
def expected(size: int, samples: int) -> tuple[np.ndarray, np.ndarray, Truth]:
    source, _ = prepared(size)
    images, labels = blobs(size, SIZES[size], samples, seed=samples), np.arange(samples) % WAYS
    found = truth(
        source.module.double(), images, labels, attention=source.attention, settings=source.settings
    )
    return images, labels, found


def feeds(size: int, samples: int) -> dict[str, np.ndarray]:
    source, program = prepared(size)
    images, labels, _ = expected(size, samples)
    given = {"images": images, "labels": labels, "class_mask": np.ones(WAYS)}
    return {**tensors(source, program), **given, "sample_weight": np.full(samples, 1 / samples)}


@pytest.mark.parametrize(("size", "samples"), [(28, 5), (84, 2)])
def test_the_programs_gradients_are_those_of_torch(size, samples):
    source, program = prepared(size)
    found = expected(size, samples)[2]
    weights = {name: value.detach().numpy() for name, value in source.module.double().named_parameters()}
    values = {**feeds(size, samples), **weights}
    result = interpret(program, values, ["loss", *found.grads], np.float64)
    assert len(found.grads) == 2 * len(LAYERS)
    for name, gradient in found.grads.items():
        np.testing.assert_allclose(result[name], gradient, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("samples", [1, 5, 25])
@pytest.mark.parametrize("size", SIZES)
def test_training_onnx_under_recorded_selections_is_torch(size, samples):
    _, program = prepared(size)
    found = expected(size, samples)[2]
    recorded = apply(RecordedSelections(), program).program
    model = training_graph(recorded, {}, frozenset(LAYERS))
    result = run_model(model, {**feeds(size, samples), **found.keeps})
    np.testing.assert_allclose(result["loss"], found.loss, atol=1e-5)
    np.testing.assert_allclose(result["logits"], found.logits, atol=1e-4)
    for name, gradient in found.grads.items():
        np.testing.assert_allclose(result[name], gradient, atol=1e-4, err_msg=name)


def test_selections_in_float32_are_those_of_float64_where_the_margin_is_wide():
    _, program = prepared(28)
    found = expected(28, 25)[2]
    model = build_graph(program, {}, {name: name for name in found.gammas}, adjustable=True)
    result = run_model(model, feeds(28, 25))
    compared = 0
    for name, gamma in found.gammas.items():
        wide = found.margins[name] > MARGIN
        compared += int(wide.sum())
        np.testing.assert_array_equal(result[name][wide] > 0, gamma[wide] > 0, err_msg=name)
    assert compared > 0.5 * 25 * len(found.gammas)
