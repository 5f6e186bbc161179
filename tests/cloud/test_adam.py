"""Our functional Adam against torch's, in float64."""

from __future__ import annotations

import torch
from edge_adapt.cloud.run import adam


def test_twenty_steps_equal_torchs_adam_with_a_rate_per_name() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.randn(3, 2, dtype=torch.float64, generator=generator) for name in ("a", "b")}
    leaves = {name: value.clone().requires_grad_() for name, value in values.items()}
    rates = {"a": 1e-2, "b": 1e-3}
    torchs = torch.optim.Adam([{"params": [leaves[name]], "lr": rate} for name, rate in rates.items()])
    state = adam.init(values)
    for step in range(20):
        decay = 1 - step / 40
        grads = {name: torch.randn(3, 2, dtype=torch.float64, generator=generator) for name in values}
        for group, name in zip(torchs.param_groups, rates, strict=True):
            group["lr"], leaves[name].grad = rates[name] * decay, grads[name]
        torchs.step()
        values, state = adam.update(
            values, grads, state, {name: rate * decay for name, rate in rates.items()}
        )
    assert state.steps == 20
    for name, leaf in leaves.items():
        torch.testing.assert_close(values[name], leaf.detach(), rtol=1e-12, atol=1e-12)


def test_the_old_values_and_state_are_left_alone() -> None:
    values = {"a": torch.ones(2)}
    state = adam.init(values)
    adam.update(values, {"a": torch.ones(2)}, state, {"a": 0.1})
    assert torch.equal(values["a"], torch.ones(2))
    assert torch.equal(state.first["a"], torch.zeros(2))
