"""Every method on quadratics, in closed form: linear regression with squared error, float64.

The support loss of a task is w'Hw/2 - b'w + const with H = 2/N X'X and b = 2/N X'y, so an inner step is
w - a(Hw - b), with the constant Jacobian I - aH; no truth here differentiates twice or steps as the library does.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from edge_adapt.cloud.inner.base import Batch, Meta, MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.losses import SQUARED_ERROR
from edge_adapt.cloud.outer import METHODS, MetaGradient
from torch import Tensor, nn

FEATURES, STEPS = 4, 3
UNIT = torch.eye(FEATURES, dtype=torch.float64)
SIZES = torch.tensor([0.1, 0.02, 0.3], dtype=torch.float64)
Quadratic = tuple[Tensor, Tensor]


def linear_network(*widths: int) -> Network:
    """Linear layers without bias, the output last and called `fc`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        module = nn.Sequential()
        names = [*(f"hidden{index}" for index in range(len(widths) - 2)), "fc"]
        for name, inputs, outputs in zip(names, widths[:-1], widths[1:], strict=True):
            module.add_module(name, nn.Linear(inputs, outputs, bias=False))
    return Network(module.double(), (widths[0],), SQUARED_ERROR)


def regressions(tasks: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(6)

    def normal(*shape: int) -> Tensor:
        return torch.randn(tasks, *shape, dtype=torch.float64, generator=generator)

    return Batch(normal(6, FEATURES), normal(6, 1), normal(5, FEATURES), normal(5, 1))


def quadratic(x: Tensor, y: Tensor) -> Quadratic:
    """H and b of the mean squared error as a function of the weights (C,)."""
    return 2 / len(x) * x.T @ x, 2 / len(x) * x.T @ y[:, 0]


def slope(of: Quadratic, w: Tensor) -> Tensor:
    return of[0] @ w - of[1]


def path(of: Quadratic, w: Tensor, sizes: Tensor) -> list[Tensor]:
    points = [w]
    for size in sizes:
        points.append(points[-1] - size * slope(of, points[-1]))
    return points


def run(name: str, sizes: Tensor = SIZES, network: Network | None = None, **settings) -> MetaGradient:
    """A method's gradient at the network's weights, with the given step sizes (K,)."""
    config = MethodConfig(
        inner_steps=len(sizes), inner_step_size=float(sizes[0]), **{"attention": False, **settings}
    )
    method = METHODS[name](network or linear_network(FEATURES, 1), config)
    meta = method.init(0).to(torch.float64)
    table = torch.where(meta.alpha != 0, sizes[:, None], 0)
    learned = {**meta.learned, "alpha": table} if "alpha" in meta.learned else meta.learned
    fixed = meta.fixed if "alpha" in meta.learned else {**meta.fixed, "alpha": table}
    return method.meta_gradient(Meta(learned, fixed), regressions(), 0.0)


def problems() -> list[tuple[Quadratic, Quadratic, Tensor]]:
    """(support, query, w) of every task."""
    batch, w = regressions(), linear_network(FEATURES, 1).weights()["fc.weight"][0]
    pairs = zip(batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True)
    return [(quadratic(x, y), quadratic(q, z), w) for x, y, q, z in pairs]


def mean(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean(0)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-11) -> None:
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=rtol, atol=1e-13)


def jacobian(support: Quadratic, sizes: Tensor) -> Tensor:
    """d w_K / d w_0, symmetric: a product of polynomials in H."""
    product = UNIT
    for size in sizes:
        product = product @ (UNIT - size * support[0])
    return product


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["maml", "anil", "maml++", "p-meta"])
def test_second_order_is_the_product_of_the_steps_jacobians(name: str, checkpointed: bool) -> None:
    parts = []
    for support, query, w in problems():
        last = path(support, w, SIZES)[-1]
        parts.append(jacobian(support, SIZES) @ slope(query, last))
    close(run(name, checkpoint_steps=checkpointed).grads["fc.weight"], mean(parts))


@pytest.mark.parametrize("name", ["maml++", "p-meta"])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_gradient_of_a_step_size_is_minus_the_query_gradient_times_that_steps_slope(
    name: str, first_order: bool
) -> None:
    parts = []
    for support, query, w in problems():
        points = path(support, w, SIZES)
        outer = slope(query, points[-1])
        rows = []
        for k in range(STEPS):
            after = jacobian(support, SIZES[k + 1 :]) if not first_order else UNIT
            rows.append(-(after @ outer) @ slope(support, points[k]))
        parts.append(torch.stack(rows)[:, None])
    close(run(name, first_order=first_order).grads["alpha"], mean(parts))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("fomaml", {}), *((n, {"first_order": True}) for n in ("maml", "maml++", "p-meta"))],
)
def test_first_order_is_the_query_gradient_at_the_adapted_weights(name: str, settings: dict) -> None:
    parts = [slope(query, path(support, w, SIZES)[-1]) for support, query, w in problems()]
    close(run(name, **settings).grads["fc.weight"], mean(parts))


def test_fomaml_plus_plus_averages_the_query_gradients_of_all_steps_at_the_start_of_training() -> None:
    parts = []
    for support, query, w in problems():
        parts.append(mean([slope(query, point) for point in path(support, w, SIZES)[1:]]))
    close(run("fomaml++", multi_step_until=0.5).grads["fc.weight"], mean(parts))


def test_reptile_is_the_way_back_from_the_adapted_weights() -> None:
    """w - w_K = sum_k a_k slope_k: by hand for two steps, (a_1 + a_2 - a_1 a_2 H) slope_0."""
    sizes = SIZES[:2]
    parts = []
    for support, _, w in problems():
        shrunk = sizes.sum() * UNIT - sizes[0] * sizes[1] * support[0]
        parts.append(shrunk @ slope(support, w))
    close(run("reptile", sizes).grads["fc.weight"], mean(parts))


def test_leap_pulls_each_point_along_the_derivative_of_its_distance_to_the_next_one() -> None:
    """d/dw_k of |(w_k+1, f_k+1) - (w_k, f(w_k))| with w_k+1 held, by autograd; all losses fall here."""
    sizes = torch.full((STEPS,), 1 / 64, dtype=torch.float64)
    batch, parts = regressions(), []
    for t, (support, _, w) in enumerate(problems()):
        x, y = batch.support_x[t], batch.support_y[t, :, 0]
        points = path(support, w, sizes)
        total = torch.zeros(FEATURES, dtype=torch.float64)
        for here, there in pairwise(points):
            free = here.clone().requires_grad_()
            fall = (x @ there - y).square().mean() - (x @ free - y).square().mean()
            assert fall < 0
            ((there - free).square().sum() + fall.square()).sqrt().backward()
            assert free.grad is not None
            total += free.grad
        parts.append(total)
    close(run("leap", sizes).grads["fc.weight"], mean(parts))


def test_one_step_of_leap_on_a_parabola_by_hand() -> None:
    """f(w) = (w - 3)^2 from w = 1 with a = 1/4: w_1 = 2, f falls from 4 to 1; -(1 + 3 * 4) / sqrt(1 + 9)."""
    network = linear_network(1, 1)
    method = METHODS["leap"](network, MethodConfig(inner_steps=1, inner_step_size=0.25))
    meta = Meta({"fc.weight": torch.ones(1, 1).double()}, method.init(0).to(torch.float64).fixed)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    found = method.meta_gradient(meta, Batch(one, 3 * one, one, one), 0.0).grads["fc.weight"]
    assert float(found) == pytest.approx(-13 / math.sqrt(10), rel=1e-14)


@pytest.mark.parametrize("damping", [0.0, 1.0])
def test_imaml_is_the_inverse_of_the_regularised_hessian_at_the_regularised_minimum(damping: float) -> None:
    prox, parts = 2.0, []
    for support, query, w in problems():
        minimum = torch.linalg.solve(support[0] + prox * UNIT, support[1] + prox * w)
        parts.append(torch.linalg.solve((1 + damping) * UNIT + support[0] / prox, slope(query, minimum)))
    sizes = torch.full((400,), 0.1, dtype=torch.float64)
    result = run("imaml", sizes, prox=prox, cg_damping=damping, cg_steps=FEATURES + 2)
    assert result.metrics["lower_residual"] < 1e-12
    close(result.grads["fc.weight"], mean(parts), rtol=1e-9)


def ridge(features: Tensor, y: Tensor, mu: float, first: Tensor | None = None) -> Tensor:
    """The head u that minimises mean (features u - y)^2 + mu/2 |u - first|^2."""
    hessian, b = quadratic(features, y)
    pull = mu * first if first is not None else 0
    return torch.linalg.solve(hessian + mu * torch.eye(len(hessian), dtype=torch.float64), b + pull)


@pytest.mark.parametrize("named", [False, True])
def test_mrml_is_the_derivative_of_the_query_loss_at_the_ridge_solution_of_the_head(named: bool) -> None:
    """Through torch.linalg.solve, with respect to the body and, where the head is named, its u_0."""
    mu, network, batch = 0.5, linear_network(FEATURES, 3, 1), regressions()
    body = network.weights()["hidden0.weight"].requires_grad_()
    first = network.weights()["fc.weight"][0].requires_grad_() if named else None
    losses = []
    for x, y, q, z in zip(batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True):
        head = ridge(x @ body.T, y, mu, first)
        losses.append((q @ body.T @ head - z[:, 0]).square().mean())
    mean(losses).backward()
    settings = {"mu": mu, "cg_steps": 5, "task_layers": ("fc",) if named else ()}
    sizes = torch.full((600,), 0.1, dtype=torch.float64)
    result = run("mrml", sizes, network, **settings)
    assert result.metrics["lower_residual"] < 1e-12
    assert body.grad is not None
    close(result.grads["hidden0.weight"], body.grad, rtol=1e-9)
    head_gradient = first.grad if first is not None else torch.zeros(3).double()
    assert head_gradient is not None
    close(result.grads["fc.weight"], head_gradient, rtol=1e-9)


def test_boil_leaves_a_network_of_one_layer_as_it_is() -> None:
    parts = [slope(query, w) for _, query, w in problems()]
    close(run("boil").grads["fc.weight"], mean(parts))


def test_every_method_is_tried_on_a_quadratic() -> None:
    tried = {
        "maml",
        "anil",
        "boil",
        "maml++",
        "p-meta",
        "fomaml",
        "fomaml++",
        "reptile",
        "leap",
        "imaml",
        "mrml",
    }
    assert tried == set(METHODS)
