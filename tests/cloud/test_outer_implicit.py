"""iMAML and MRML against bilevel problems solved by Newton's method, and against long unrolls; the CG solver.

The truth knows no implicit formula: the lower level is solved to rounding for moved meta-parameters, and the
query loss at the solutions is differenced.
"""

from __future__ import annotations

import pytest
import torch
from edge_adapt.cloud.inner.base import Meta, MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.outer import METHODS, Batch
from edge_adapt.cloud.outer.conjugate_gradient import conjugate_gradient
from torch import Tensor, nn

from .written_out import loss_of

CONVERGED = {"inner_steps": 300, "inner_step_size": 0.5, "cg_steps": 40}


def tiny_network() -> Network:
    """fc 4 -> 3, softplus, fc 3 -> 3: 27 parameters, smooth."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = nn.Sequential()
        for name, part in {
            "flatten": nn.Flatten(),
            "hidden": nn.Linear(4, 3),
            "bend": nn.Softplus(),
            "fc": nn.Linear(3, 3),
        }.items():
            module.add_module(name, part)
    return Network(module.double(), (1, 2, 2))


def tiny_batch(tasks: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(2)
    x, q = (torch.randn(tasks, 6, 1, 2, 2, dtype=torch.float64, generator=generator) for _ in "sq")
    y = (torch.arange(6) % 3).expand(tasks, 6).contiguous()
    return Batch(x, y, q, y)


def prepared(name: str, **settings):
    network = tiny_network()
    method = METHODS[name](network, MethodConfig(**{**CONVERGED, **settings}))
    return network, method, method.init(1).to(torch.float64)


def newton(network: Network, learned: dict[str, Tensor], task: tuple[str, ...], c: float, x, y) -> Tensor:
    """The minimum over the task part of support loss + c/2 |u - u_0|^2, as one vector."""
    shapes = [learned[name].shape for name in task]
    first = torch.cat([learned[name].flatten() for name in task])
    loss = loss_of(network, x, y)

    def lower(u: Tensor) -> Tensor:
        parts = u.split([shape.numel() for shape in shapes])
        own = {name: part.reshape(shape) for name, part, shape in zip(task, parts, shapes, strict=True)}
        return loss({**learned, **own}) + c / 2 * (u - first).square().sum()

    u = first.clone()
    for _ in range(30):
        slope = torch.func.grad(lower)(u)
        if slope.norm() < 1e-13:
            return u
        u = u - torch.linalg.solve(torch.autograd.functional.hessian(lower, u), slope)
    raise AssertionError("Newton's method did not converge")


def solved_query_loss(network, learned, task, c, batch) -> float:
    """Mean over tasks of the query loss at the solved lower level."""
    losses = []
    for t in range(len(batch)):
        u = newton(network, learned, task, c, batch.support_x[t], batch.support_y[t])
        parts = u.split([learned[name].numel() for name in task])
        own = {n: part.reshape(learned[n].shape) for n, part in zip(task, parts, strict=True)}
        losses.append(loss_of(network, batch.query_x[t], batch.query_y[t])({**learned, **own}))
    return float(torch.stack(losses).mean())


CASES = {
    "imaml": ("imaml", {"prox": 2.0}, ("hidden", "fc"), 2.0),
    "mrml head": ("mrml", {"mu": 0.5}, ("fc",), 0.5),
    "mrml hidden": ("mrml", {"mu": 1.0, "task_layers": ("hidden",)}, ("hidden",), 1.0),
    "mrml head by name": ("mrml", {"mu": 0.5, "task_layers": ("fc",)}, ("fc",), 0.5),
    "mrml all": ("mrml", {"mu": 2.0, "task_layers": ("fc", "hidden")}, ("hidden", "fc"), 2.0),
}


@pytest.mark.parametrize("case", CASES)
def test_converged_gradient_equals_differences_of_the_solved_problem(case):
    name, settings, layers, c = CASES[case]
    network, method, meta = prepared(name, **settings)
    batch = tiny_batch()
    task = tuple(n for layer in layers for n in (f"{layer}.weight", f"{layer}.bias"))
    result = method.meta_gradient(meta, batch, 0.0)
    assert result.metrics["lower_residual"] < 1e-9
    assert result.metrics["cg_residual"] < 1e-9
    assert result.metrics["query_loss"] == pytest.approx(
        solved_query_loss(network, meta.learned, task, c, batch)
    )
    generator = torch.Generator().manual_seed(9)
    fixed = task if case == "mrml head" else ()
    for key, value in meta.learned.items():
        if key in fixed:
            assert not value.any()
            assert not result.grads[key].any()
            continue
        direction = torch.randn(value.shape, dtype=torch.float64, generator=generator)

        def loss(step: float, key=key, value=value, direction=direction) -> float:
            moved = {**meta.learned, key: value + step * direction}
            return solved_query_loss(network, moved, task, c, batch)

        h = 1e-3
        slope = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)
        assert float((result.grads[key] * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-9), key


UNROLLED = {
    "imaml": ("imaml", {"prox": 2.0, "inner_step_size": 0.3}, ("hidden", "fc"), 2.0),
    "mrml head": ("mrml", {"mu": 0.5}, ("fc",), 0.5),
    "mrml hidden": ("mrml", {"mu": 1.0, "task_layers": ("hidden",)}, ("hidden",), 1.0),
}


@pytest.mark.parametrize("case", UNROLLED)
def test_fifty_steps_equal_the_gradient_through_three_thousand_unrolled_steps(case):
    """K = 50 and 5 CG steps are within 1e-4 of the truth, which is differentiated through all its steps."""
    name, settings, layers, c = UNROLLED[case]
    network, method, meta = prepared(name, inner_steps=50, cg_steps=5, **settings)
    batch = tiny_batch(1)
    support = loss_of(network, batch.support_x[0], batch.support_y[0])
    first = {n: v.clone().requires_grad_() for n, v in meta.learned.items()}
    task = {n: v for n, v in first.items() if n.split(".")[0] in layers}
    for _ in range(3000):
        slopes = torch.autograd.grad(support({**first, **task}), list(task.values()), create_graph=True)
        task = {n: v - 0.3 * (g + c * (v - first[n])) for (n, v), g in zip(task.items(), slopes, strict=True)}
    query = loss_of(network, batch.query_x[0], batch.query_y[0])({**first, **task})
    truth = dict(zip(first, torch.autograd.grad(query, list(first.values())), strict=True))
    result = method.meta_gradient(meta, batch, 0.0)
    assert result.metrics["lower_residual"] < 1e-3
    for key in truth.keys() - (task.keys() if case == "mrml head" else ()):  # its u_0 = 0 is not learned
        assert float((result.grads[key] - truth[key]).norm() / truth[key].norm()) <= 1e-4, key


def test_imaml_with_damping_solves_the_damped_system():
    """((1 + d) I + H / lambda) v = grad loss_Q at the solution, H from torch's hessian."""
    network, method, meta = prepared("imaml", prox=2.0, cg_damping=1.0)
    batch = tiny_batch(1)
    task = tuple(network.parameters)
    u = newton(network, meta.learned, task, 2.0, batch.support_x[0], batch.support_y[0])
    shapes = [meta.learned[name].shape for name in task]

    def at(loss):
        def of(vector: Tensor) -> Tensor:
            parts = vector.split([shape.numel() for shape in shapes])
            return loss({n: p.reshape(s) for n, p, s in zip(task, parts, shapes, strict=True)})

        return of

    hessian = torch.autograd.functional.hessian(
        at(loss_of(network, batch.support_x[0], batch.support_y[0])), u
    )
    slope = torch.func.grad(at(loss_of(network, batch.query_x[0], batch.query_y[0])))(u)
    expected = torch.linalg.solve(2 * torch.eye(len(u)) + hessian / 2.0, slope)
    grads = method.meta_gradient(meta, batch, 0.0).grads
    found = torch.cat([grads[name].flatten() for name in task])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10)


def test_a_lower_level_that_is_not_solved_reports_it():
    _, rough, meta = prepared("mrml", mu=0.01, inner_steps=5, inner_step_size=0.1)
    _, solved, _ = prepared("mrml", mu=0.5, inner_steps=50)
    batch = tiny_batch()
    assert (
        rough.meta_gradient(Meta(meta.learned, rough.init(1).fixed), batch, 0.0).metrics["lower_residual"]
        > 0.5
    )
    assert (
        solved.meta_gradient(Meta(meta.learned, solved.init(1).fixed), batch, 0.0).metrics["lower_residual"]
        < 1e-3
    )


def test_tasks_in_chunks_give_the_same_implicit_gradient():
    for name in ("imaml", "mrml"):
        _, method, meta = prepared(name, inner_steps=5)
        _, chunked, _ = prepared(name, inner_steps=5, tasks_per_chunk=2)
        expected, found = (m.meta_gradient(meta, tiny_batch(5), 0.0) for m in (method, chunked))
        assert found.metrics == pytest.approx(expected.metrics)
        for key, value in expected.grads.items():
            torch.testing.assert_close(found.grads[key], value, rtol=1e-9, atol=1e-12)


def test_mrml_updates_only_the_task_part():
    _, method, _ = prepared("mrml", task_layers=("hidden",))
    assert method.init(0).updated.tolist() == [True, False]
    _, method, _ = prepared("mrml")
    assert method.init(0).updated.tolist() == [False, True]


def test_an_unknown_task_layer_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"task_layers: no layer is called 'head'; there are hidden, fc"):
        prepared("mrml", task_layers=("head",))


def test_conjugate_gradients_solve_several_systems_at_once():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 6, 6, dtype=torch.float64, generator=generator)
    matrices = root @ root.mT + torch.eye(6)
    b = torch.randn(3, 6, dtype=torch.float64, generator=generator)
    b[1] = 0
    found = conjugate_gradient(lambda p: torch.einsum("tij,tj->ti", matrices, p), b, 30)
    torch.testing.assert_close(found.x, torch.linalg.solve(matrices, b), rtol=1e-9, atol=1e-12)
    assert (found.residual < 1e-9).all()
    early = conjugate_gradient(lambda p: torch.einsum("tij,tj->ti", matrices, p), b, 2)
    true_residual = (b - torch.einsum("tij,tj->ti", matrices, early.x)).norm(dim=1) / b.norm(dim=1)
    torch.testing.assert_close(early.residual[[0, 2]], true_residual[[0, 2]])


def test_conjugate_gradients_stop_where_the_curvature_is_not_positive_and_pass_nan_on():
    b = torch.ones(3, 2, dtype=torch.float64)
    scales = torch.tensor([[-1.0], [2.0], [torch.nan]], dtype=torch.float64)
    found = conjugate_gradient(lambda p: scales * p, b, 4)
    assert found.x[0].tolist() == [0.0, 0.0]
    assert found.residual[0] == 1
    assert found.x[1].tolist() == [0.5, 0.5]
    assert found.x[2].isnan().all()
