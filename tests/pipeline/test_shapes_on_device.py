"""Operations that move, pool, resize and multiply, on the device: planned, in a poisoned arena, in micro-batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import ReferenceEngine, default_engine, engine_named
from edge_adapt.edge.plan import Plan, search_plan
from edge_adapt.edge.plan.space import Fixed
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


def exact_plans(bundle: Bundle) -> Iterator[Plan]:
    """Yield plans that lose nothing, one sample at a time and all at once, of every engine that plans."""
    files = bundle.files
    for name in dict.fromkeys(("reference", default_engine())):
        target = engine_named(name, files.path).target
        for micro_batch in (1, SAMPLES):
            fixed = Fixed(micro_batch, saved_bits=32, cache_bits=32)
            alpha = files.weights.copy("alpha")
            yield search_plan(files.program, alpha, SAMPLES, STEPS, fixed=fixed, target=target)


@pytest.mark.parametrize("name", GROUPS)
def test_an_adaptation_is_torchs_on_every_engine(name: str, tmp_path: Any) -> None:
    """The arena is filled with random bytes before every adaptation: what it held cannot matter."""
    module = copy.deepcopy(built(name)).float()
    export_bundle(
        module, tmp_path / "b", example_input=np.zeros((1, *SHAPE), np.float32), step_size=RATE, steps=STEPS,
        samples=SAMPLES,
    )  # fmt: skip
    bundle = Bundle.open(tmp_path / "b")
    assert verify(bundle.files, ReferenceEngine())["passed"]
    x, y = samples()
    expected = adapted_by_torch(name)
    for plan in exact_plans(bundle):
        found = bundle.adapt(x, y, plan, plan.engine).logits(x)
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
