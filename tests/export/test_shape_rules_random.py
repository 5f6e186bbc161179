"""Random attributes through capture, gradients and standard operators; slopes of the loss; the exporter's own graph."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from edge_adapt.edge.reference.interpret import interpret
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from .cases import example
from .cases_shapes import SHAPE, Around, case, exported, names
from .ort import run_program
from .test_gradient_rules import check
from .test_onnx_expansions import assert_close
from .truth import truth

few = settings(max_examples=5, deadline=None, derandomize=True)


@st.composite
def functions(draw: st.DrawFn):
    """An operation with random attributes on (N, 4, 6, 4)."""
    perm = draw(st.permutations([1, 2, 3]))
    axis = draw(st.integers(1, 3))
    start, width = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    stride = [draw(st.integers(1, 3)) for _ in range(2)]
    size = [draw(st.integers(1, 9)) for _ in range(2)]
    axes = sorted(draw(st.sets(st.integers(1, 3), min_size=1)))
    index = (slice(None),) * axis + (slice(start, start + width),)
    return draw(
        st.sampled_from(
            [
                lambda x: x.permute(0, *perm)[index],
                lambda x: torch.cat([x[index], x, x[index]], axis),
                lambda x: F.pad(x, pads, value=0.5) * 2,
                lambda x: F.max_pool2d(x, kernel, stride, [k // 2 for k in kernel]),
                lambda x: F.avg_pool2d(x, kernel, stride, [k // 2 for k in kernel]),
                lambda x: F.interpolate(x, size),
                lambda x: F.interpolate(x, size, mode="bilinear"),
                lambda x: x * x.mean(axes, keepdim=True) - x.mean(axes, keepdim=True) + 1,
                lambda x: x.permute(0, *perm) @ x.permute(0, *perm).mT,
            ]
        )
    )


@few
@given(st.lists(functions(), min_size=4, max_size=6))
def test_random_attributes(chosen):
    torch.manual_seed(6)
    one = example(Around(chosen), SHAPE, attended=False, samples=3)
    expected = truth(one.module, one.images, one.labels)
    check(one, expected)
    found = run_program(one, ["loss", *one.gradients])
    assert_close(found, {**expected.grads, "loss": np.float64(expected.loss)})


@pytest.mark.parametrize("name", names())
def test_gradients_are_slopes_of_the_loss(name):
    """Along one random direction of all parameters at once."""
    one = case(name)
    values = one.values()
    rng = np.random.default_rng(7)
    directions = {g: rng.normal(size=values[g.removeprefix("grad::")].shape) for g in one.gradients}
    found = interpret(one.program, values, one.gradients, np.float64)
    expected = sum(float((found[g] * directions[g]).sum()) for g in one.gradients)
    losses = []
    for step in (1e-6, -1e-6):
        moved = {g.removeprefix("grad::"): step * d for g, d in directions.items()}
        moved = {param: values[param] + change for param, change in moved.items()}
        losses.append(interpret(one.program, {**values, **moved}, ["loss"], np.float64)["loss"])
    assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", names())
def test_the_exporters_own_graph_gives_the_same_logits(name):
    """The operators as torch wrote them (Resize, Split, ...), in stock onnxruntime."""
    one = case(name)
    session = onnxruntime.InferenceSession(
        exported(name).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {session.get_inputs()[0].name: one.images.astype(np.float32)})
    logits = one.program.outputs["logits"]
    found = interpret(one.program, one.values(), [logits], np.float32)[logits]
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))
