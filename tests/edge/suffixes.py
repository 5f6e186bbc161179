"""Plans with a schedule of one's choosing, and programs whose cut lies in odd places."""

from __future__ import annotations

from collections.abc import Sequence

from edge_adapt.edge.lower import REFERENCE, Choice, lower, lower_predict
from edge_adapt.edge.plan import Plan, arena_layout, make_plan
from edge_adapt.edge.plan.search import updated_layers
from edge_adapt.edge.plan.static import static_bytes, weights_bytes
from edge_adapt.edge.program import Program

from .programs import Builder, DictWeights, Net, finished, head_gradients, loss, started

SAMPLES, STEPS = 11, 3
SUFFIX = "cached suffix"
TOKENS, WIDTH = 12, 12


def freeze(program: Program, weights: DictWeights, *rows: Sequence[str]) -> DictWeights:
    """Update only the named layers, in every gradient step or, of several rows, in the step of each row."""
    alpha = weights.tensors["alpha"]
    for step in range(len(alpha)):
        named = rows[min(step, len(rows) - 1)]
        for layer in program.layers:
            alpha[step, layer.index] *= layer.name in named
    return weights


def plan_of(
    program: Program,
    weights: DictWeights,
    choice: Choice,
    samples: int = SAMPLES,
    steps: int = STEPS,
) -> Plan:
    """Plan the choice, whatever the search would take."""
    updated = updated_layers(program, weights.tensors["alpha"], steps)
    lowered = lower(program, updated, samples, choice)
    layers = [[a.name for a, on in zip(program.layers, mask, strict=True) if on] for mask in updated]
    predict_bytes = arena_layout(lower_predict(program, 1).programs[0])[1]
    needed = weights_bytes(program, lowered, predict_bytes)
    static = static_bytes(program, lowered, None, REFERENCE.table_bytes(lowered), weights=needed)
    return make_plan(lowered, layers, static, REFERENCE)


def token_program() -> Program:
    """Build [class token, embedded rows of an image], x + LayerNorm(x), PReLU, fc on all tokens."""
    net = Net(size=TOKENS)
    b = started(net, 5)
    tokens = ("N", TOKENS + 1, WIDTH)
    b.layer("class", "affine", {"weight": (1, WIDTH)})
    b.layer("embed", "fc", {"weight": (WIDTH, WIDTH), "bias": (WIDTH,)})
    b.layer("norm", "norm", {"scale": (WIDTH,), "bias": (WIDTH,)})
    b.layer("slope", "slope", {"weight": (TOKENS + 1,)})
    b.layer("fc", "fc", {"weight": (net.classes, (TOKENS + 1) * WIDTH), "bias": (net.classes,)})
    b.op("forward", "Reshape", ["images"], [b.tensor("rows", ("N", TOKENS, WIDTH))])
    b.op("forward", "Expand", ["class.weight"], [b.tensor("first", ("N", 1, WIDTH))], "class")
    b.op("forward", "Fc", ["rows", "embed.weight", "embed.bias"], [b.like("embedded", "rows")], "embed")
    b.op("forward", "Concat", ["first", "embedded"], [b.tensor("tokens", tokens)], axis=1)
    x_hat, inv_std = b.tensor("x_hat", tokens, "saved"), b.tensor("inv_std", ("N", TOKENS + 1), "saved")
    b.op(
        "forward", "LayerNorm", ["tokens", "norm.scale", "norm.bias"],
        [b.tensor("normed", tokens), x_hat, inv_std], "norm", dims=1, eps=1e-5,
    )  # fmt: skip
    b.op("forward", "Add", ["normed", "tokens"], [b.tensor("sum", tokens)])
    b.op("forward", "PRelu", ["sum", "slope.weight"], [b.tensor("bent", tokens)], "slope")
    features = (TOKENS + 1) * WIDTH
    b.op("forward", "Reshape", ["bent"], [b.tensor("flat", ("N", features))])
    b.op("forward", "Fc", ["flat", "fc.weight", "fc.bias"], [b.tensor("logits", ("N", net.classes))], "fc")
    loss(b)
    head_gradients(b, "bent")
    _token_gradients(b)
    return finished(b, net)


def _token_gradients(b: Builder) -> None:
    for name in ("sum", "normed", "tokens"):
        b.like(f"g::{name}", name)
    b.op("backward", "PReluInputGrad", ["g::bent", "sum", "slope.weight"], ["g::sum"], "slope")
    b.op("backward", "PReluSlopeGrad", ["g::bent", "sum", "sample_weight"], ["grad::slope.weight"], "slope")
    weight = "sample_weight"
    b.op("backward", "ScaleGrad", ["g::sum", "x_hat", weight], ["grad::norm.scale"], "norm", axis=-1)
    b.op("backward", "BiasGrad", ["g::sum", weight], ["grad::norm.bias"], "norm", axis=-1)
    back = ["g::sum", "x_hat", "inv_std", "norm.scale"]
    b.op("backward", "LayerNormInputGrad", back, ["g::normed"], "norm", dims=1)
    b.op("backward", "Add", ["g::normed", "g::sum"], ["g::tokens"])
    for name, layer, start, end in (("first", "class", 0, 1), ("embedded", "embed", 1, TOKENS + 1)):
        cut = {"starts": [start, 0], "ends": [end, WIDTH]}
        b.op("backward", "Slice", ["g::tokens"], [b.like(f"g::{name}", name)], layer, **cut)
    b.op("backward", "FcWeightGrad", ["rows", "g::embedded", weight], ["grad::embed.weight"], "embed")
    b.op("backward", "BiasGrad", ["g::embedded", weight], ["grad::embed.bias"], "embed", axis=-1)
    b.op("backward", "BiasGrad", ["g::first", weight], ["grad::class.weight"], "class", axis=-1)
