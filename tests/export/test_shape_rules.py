"""Rules that move, combine, pool, resize and multiply values: recognised, differentiated, expanded."""

from __future__ import annotations

import numpy as np
import pytest
from edge_adapt.export.ops import arithmetic, average_pool, cut, matmul, mean, pool, resize, shape

from .cases_shapes import case, names
from .ort import run_program
from .test_gradient_rules import check
from .test_onnx_expansions import assert_close
from .truth import truth


@pytest.mark.parametrize("name", names())
def test_gradients_are_those_of_autograd(name):
    one = case(name)
    check(one, truth(one.module, one.images, one.labels))


@pytest.mark.parametrize("name", names())
def test_standard_operators_compute_the_same(name):
    one = case(name)
    expected = truth(one.module, one.images, one.labels)
    logits = one.program.outputs["logits"]
    found = run_program(one, ["loss", logits, *one.gradients])
    assert_close(found, {**expected.grads, "loss": np.float64(expected.loss), logits: expected.logits})


def test_every_operation_of_these_families_is_among_the_cases():
    kinds = {op.kind for name in names() for op in case(name).program.ops()}
    families = (arithmetic, mean, pool, average_pool, shape, cut, resize, matmul)
    assert {rule.kind for family in families for rule in family.RULES} <= kinds
