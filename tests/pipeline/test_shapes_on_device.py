"""Operations that move, pool, resize and multiply, on the device: planned, in a poisoned arena, in micro-batches."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.errors import BudgetError
from edge_adapt.edge.verify import verify
from edge_adapt.export import export_bundle
from torch.nn import functional as F

from ..export.cases_shapes import SHAPE, built

STEPS, RATE, SAMPLES = 2, 0.02, 7
GROUPS = ("arithmetic", "max-pools", "average-pools", "cuts", "resizes", "gates")


def samples() -> tuple[Any, Any]:
    rng = np.random.default_rng(8)
    return rng.normal(size=(SAMPLES, *SHAPE)).astype(np.float32), np.arange(SAMPLES) % 3


def adapted_by_torch(name: str) -> Any:
    """Logits after plain gradient steps, in float64."""
    module = copy.deepcopy(built(name)).double()
    x, y = (torch.from_numpy(values) for values in samples())
    for _ in range(STEPS):
        loss = F.cross_entropy(module(x.double()), y)
        grads = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(module.parameters(), grads, strict=True):
                parameter -= RATE * grad
    return module(x.double()).detach().numpy()


@pytest.mark.parametrize("name", GROUPS)
def test_an_adaptation_is_torchs_with_and_without_memory_to_spare(name: str, tmp_path: Any) -> None:
    """The arena is filled with random bytes before every adaptation: what it held cannot matter."""
    module = copy.deepcopy(built(name)).float()
    export_bundle(
        module, tmp_path / "b", example_input=np.zeros((1, *SHAPE), np.float32), step_size=RATE, steps=STEPS,
        samples=SAMPLES,
    )  # fmt: skip
    bundle = Bundle.open(tmp_path / "b")
    assert verify(bundle.files, ReferenceEngine())["passed"]
    with pytest.raises(BudgetError) as smallest:
        bundle.plan(memory_budget=1)
    x, y = samples()
    expected = adapted_by_torch(name)
    batches = set()
    for plan in (bundle.plan(), bundle.plan(memory_budget=smallest.value.smallest_bytes)):
        batches.add(plan.micro_batch)
        found = bundle.adapt(x, y, plan).logits(x)
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
    assert SAMPLES in batches
    assert len(batches) == 2
