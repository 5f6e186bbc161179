"""p-Meta with attention on one side only (an ablation of table 4) adapts in the planned engine as in torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from edge_adapt.cloud import TrainedRun
from edge_adapt.cloud.inner.device import adapt
from edge_adapt.cloud.outer import METHODS, Meta
from edge_adapt.cloud.tasks import EpisodeSampler, load_dataset
from edge_adapt.edge.engines import Hooks, ReferenceEngine
from edge_adapt.edge.inputs import from_arrays
from edge_adapt.edge.plan import search_plan

from .test_three_forms import SHOTS, TOLERANCE, WAYS, Case, Values, noisy, recorded_program


@pytest.fixture(params=["fw", "bw"])
def case(request: pytest.FixtureRequest, trained: TrainedRun) -> Case:
    """The trained run without the modules of one side, and what torch makes of one task in float64."""
    config = replace(trained.parts.method.config, **{f"rho_{request.param}": None})
    method = METHODS[config.name](trained.parts.network, config)
    own = {n: v for n, v in trained.meta.learned.items() if f".{request.param}." not in n}
    meta = Meta(own, {"alpha": trained.alpha})
    run = replace(trained, parts=replace(trained.parts, method=method), meta=meta)
    clean = EpisodeSampler(load_dataset("glyphs", "test"), ways=WAYS, shots=SHOTS, queries=4, seed=3).episode(
        0
    )
    episode = replace(clean, support_x=noisy(clean.support_x, 0), query_x=noisy(clean.query_x, 1))
    x = torch.from_numpy(run.spec.preprocess(episode.support_x)).double()[None]
    y = torch.from_numpy(episode.support_y)[None]
    truth = adapt(run.parts.network, config, run.meta.to(torch.float64), x, y)
    support = from_arrays(episode.support_x, episode.support_y, run.spec)
    return Case(run, episode, support, truth, np.empty(0), trained.alpha.numpy())


def test_attention_of_one_side_adapts_as_in_torch_at_any_micro_batch(case: Case) -> None:
    program, values = recorded_program(case)
    for micro_batch in (1, 5):
        plan = search_plan(
            program, case.alpha, len(case.support), len(case.alpha), micro_batch=micro_batch, storage="sparse"
        )
        hooks = Hooks(selections=case.keeps)
        done = ReferenceEngine().adapt(program, plan, Values(values), case.support, hooks=hooks)
        np.testing.assert_allclose(done.losses, case.truth.losses[0].numpy(), atol=TOLERANCE)
        for name, value in done.updated.items():
            np.testing.assert_allclose(value, case.truth.weights[name][0].numpy(), atol=TOLERANCE)
