"""MAML's second-order gradient against two other libraries (extra `test` has them), float64."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner.base import MethodConfig
from edge_adapt.cloud.outer import METHODS
from torch.nn import functional as F

from .plain import random_batch, small_network

SIZE, STEPS = 0.25, 3


def ours():
    method = METHODS["maml"](small_network(), MethodConfig(inner_steps=STEPS, inner_step_size=SIZE))
    return method.meta_gradient(method.init(0).to(torch.float64), random_batch(), 0.0).grads


def assert_close(found):
    for name, value in ours().items():
        assert float((found[name] - value).norm() / value.norm()) <= 1e-10, name


def test_maml_equals_higher():
    higher = pytest.importorskip("higher", reason="higher is not installed (extra `test`)")
    module, batch = small_network().module, random_batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=SIZE)
    for t in range(len(batch)):
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (inner, steps):
            for _ in range(STEPS):
                steps.step(F.cross_entropy(inner(batch.support_x[t]), batch.support_y[t]))
            loss = F.cross_entropy(inner(batch.query_x[t]), batch.query_y[t])
            (loss / len(batch)).backward()
    assert_close({name: value.grad for name, value in module.named_parameters()})


def test_maml_equals_torchopt():
    torchopt = pytest.importorskip("torchopt", reason="torchopt is not installed (extra `test`)")
    module, batch = small_network().module, random_batch()
    optimizer = torchopt.MetaSGD(module, lr=SIZE)
    start = torchopt.extract_state_dict(module, by="reference")
    first = torchopt.extract_state_dict(optimizer)
    leaves = dict(module.named_parameters())
    for t in range(len(batch)):
        for _ in range(STEPS):
            optimizer.step(F.cross_entropy(module(batch.support_x[t]), batch.support_y[t]))
        loss = F.cross_entropy(module(batch.query_x[t]), batch.query_y[t])
        (loss / len(batch)).backward()
        torchopt.recover_state_dict(module, start)
        torchopt.recover_state_dict(optimizer, first)
    assert_close({name: value.grad for name, value in leaves.items()})
