"""Plans for the native engine, of any choice, and what every one of its tests runs."""

from __future__ import annotations

import pytest
from edge_adapt.edge import native
from edge_adapt.edge.lower import Choice, Target, lower
from edge_adapt.edge.plan import Plan, make_plan
from edge_adapt.edge.plan.search import updated_layers
from edge_adapt.edge.plan.static import static_bytes
from edge_adapt.edge.program import Program

from .native_calls import REASON
from .programs import DictWeights, random_weights

needs_native = pytest.mark.skipif(not native.available(), reason=REASON)


def plan_of(
    program: Program, weights: DictWeights, choice: Choice, target: Target, samples: int, steps: int
) -> Plan:
    """Plan this choice, whatever the search would take."""
    updated = updated_layers(program, weights.tensors["alpha"], steps)
    lowered = lower(program, updated, samples, choice, target=target)
    layers = [[a.name for a, on in zip(program.layers, mask, strict=True) if on] for mask in updated]
    static = static_bytes(program, lowered, None, target.table_bytes(lowered))
    return make_plan(lowered, layers, static, target)


def weights_with_frozen(program: Program, *frozen: str) -> DictWeights:
    """Random parameters; the step sizes of the named layers are 0."""
    weights = random_weights(program, step_size=0.05)
    for layer in program.layers:
        if layer.name in frozen:
            weights.tensors["alpha"][:, layer.index] = 0
    return weights
