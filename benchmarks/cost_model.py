"""Dense MAML on 4Conv at 84x84, batch 1: our plan beside the p-Meta paper's cost model, term by term.

python benchmarks/cost_model.py           rewrites the table in docs/memory.md
python benchmarks/cost_model.py --check   fails if docs/memory.md says something else
"""

from __future__ import annotations

import numpy as np
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import build_backbone
from edge_adapt.edge.cost import WORD_BYTES, Layer, accumulator_bytes
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.paper_cost import activation_words, chain_blocks, training_peak_bytes
from edge_adapt.edge.plan import Plan, search_plan
from edge_adapt.edge.plan.space import Fixed
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.source import Source
from pages import rewrite_or_check

PLAIN = Fixed(1, "accumulate", "dense", saved_bits=32, recompute=False, tiling="maps")
SIZE, CHANNELS, WAYS = 84, 3, 5


def main() -> None:
    """Put the table into the docs or compare it with what stands there."""
    rewrite_or_check(
        "Plan and published cost model side by side.", {"docs/memory.md": {"cost model": render}}
    )


def render() -> str:
    """Return the table in Markdown."""
    network = Network(build_backbone("conv4", (CHANNELS, SIZE, SIZE), WAYS, 0), (CHANNELS, SIZE, SIZE))
    plan = dense_plan(network)
    rows = [*paper_rows(network.layers, plan), ("sum", paper_total(network.layers), plan.dynamic_bytes)]
    lines = [f"| {name} | {_bytes(theirs)} | {_bytes(ours)} |" for name, theirs, ours in rows]
    return "\n".join(["| term | cost model, bytes | plan, bytes |", "|---|---:|---:|", *lines, ""])


def dense_plan(network: Network) -> Plan:
    """Plan one step that updates every layer, one sample at a time, nothing cut."""
    names = tuple(layer.name for layer in network.layers)
    alpha = np.full((1, len(names)), 0.01, np.float32)
    spec = InputSpec(CHANNELS, SIZE, SIZE, (0.5,) * CHANNELS, (0.25,) * CHANNELS)
    source = Source("conv4-84", network.module, spec, names, alpha)
    return search_plan(adaptation(source), alpha, 25, 1, fixed=PLAIN)


def paper_rows(layers: tuple[Layer, ...], plan: Plan) -> list[tuple[str, float, float]]:
    """Return (term, cost model, plan) rows at each one's own peak."""
    blocks = chain_blocks(layers)
    peak = max(range(len(blocks)), key=lambda last: activation_words(blocks[: last + 1]))
    live = blocks[: peak + 1]
    stored = WORD_BYTES * sum(block.stored_words for block in live)
    masks = WORD_BYTES * sum(block.mask_words for block in live)
    accumulators = accumulator_bytes(layers, [True] * len(layers))
    working = WORD_BYTES * live[-1].working_maps * live[-1].map_words
    terms = plan.terms
    return [
        ("accumulators", accumulators, terms["accumulators"]),
        ("saved maps, the input image among them", stored, terms["saved"]),
        ("bit masks", masks, terms["masks"]),
        ("working maps", working, terms["working"]),
        ("workspace inside the operation", 0, terms["workspace"]),
        ("alignment and gaps", 0, terms["gaps"]),
    ]


def paper_total(layers: tuple[Layer, ...]) -> float:
    """Return the published model's figure for MAML at batch 1."""
    blocks = chain_blocks(layers)
    return training_peak_bytes(blocks, sum(layer.weight_words for layer in layers))


def _bytes(count: float) -> str:
    return f"{count:,.0f}"


if __name__ == "__main__":
    main()
