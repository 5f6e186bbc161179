"""Query samples in groups: the same loss, metric and gradients as all at once."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner import unroll
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.inner.in_parts import sum_in_parts
from edge_adapt.cloud.outer import METHODS

from .plain import random_batch, small_network


def test_a_sum_in_parts_has_the_gradients_of_the_sum():
    w, frozen = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor(5.0)
    groups = [torch.tensor([1.0, 0.0]), torch.tensor([4.0, 1.0]), torch.tensor([0.0, 7.0])]

    def part(group, values):
        return (values[0] ** 2 * group).sum() * values[1]

    total = sum_in_parts(part, groups, [w, frozen])
    assert float(total.detach()) == 5 * (5 * 4 + 8 * 9)
    (2 * total).backward()
    assert w.grad.tolist() == [2 * 5 * 2 * 2 * 5, 2 * 5 * 2 * 3 * 8]


@pytest.mark.parametrize("name", ["maml", "anil", "fomaml", "mrml", "maml checkpointed"])
def test_methods_take_the_query_samples_in_groups_and_find_the_same(name, monkeypatch):
    method = METHODS[name.split()[0]]
    settings = MethodConfig(inner_steps=2, inner_step_size=0.1, checkpoint_steps="checkpointed" in name)
    network, batch = small_network(), random_batch(queries=7)
    sizes = []
    forward = unroll.Unroll._forward

    def watched(self, weights, known, of, scores=None):
        sizes.append(len(next(iter(known.values()))))
        return forward(self, weights, known, of, scores)

    monkeypatch.setattr(unroll.Unroll, "_forward", watched)
    meta = method(network, settings).init(0).to(torch.float64)
    whole = method(network, settings).meta_gradient(meta, batch, 0.0)
    before, sizes[:] = list(sizes), []
    monkeypatch.setattr(unroll, "MAP_BYTES", 3 * 4 * 64 * 8 * 3)  # three samples of three tasks
    parts = method(network, settings).meta_gradient(meta, batch, 0.0)
    splits = name not in ("anil", "mrml")  # those keep the graph of the features
    assert (sorted(set(sizes)) != sorted(set(before))) == splits, "were the samples in groups?"
    assert parts.metrics == pytest.approx(whole.metrics, rel=1e-12)
    for key, value in whole.grads.items():
        torch.testing.assert_close(parts.grads[key], value, rtol=1e-10, atol=1e-12)
