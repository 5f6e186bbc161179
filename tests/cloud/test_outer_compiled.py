"""Compiled outer gradients: the traced program's numbers are autograd's; one trace per shape; what is refused."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from edge_adapt.cloud.inner.base import Batch, Meta
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.lite import LiteConfig
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import METHODS, MetaGradient, MethodConfig
from edge_adapt.cloud.outer.base import ChunkSums
from edge_adapt.cloud.outer.compiled import CompiledSums, Program
from torch import Tensor, nn
from torch.fx import GraphModule

from .plain import random_batch, small_network

DENSE = (1, 2, 2)
CASES = {
    "maml": ("maml", {}),
    "anil": ("anil", {}),
    "maml++, every step's loss": ("maml++", {"multi_step_until": 0.9}),
    "p-meta": ("p-meta", {}),
    "p-meta, attention of each sample": ("p-meta", {"attention_over": "sample"}),
    "p-meta, first order": ("p-meta", {"first_order_until": 0.9}),
    "p-meta, channels": ("p-meta", {"attention": False, "channel_alpha": True}),
}


class Counted:
    """A backend that runs the graph as it is, and counts."""

    def __init__(self) -> None:
        self.graphs: list[GraphModule] = []

    def __call__(self, graph: GraphModule, device: torch.device) -> Program:
        self.graphs.append(graph)
        return graph


def dense_network() -> Network:
    """Two fully connected layers: quick to trace."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(prod(DENSE), 5), nn.Softplus(), nn.Linear(5, 3))
    return Network(module.double(), DENSE)


def dense_batch(tasks: int = 2, samples: int = 4, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, tasks, samples, *DENSE, generator=generator).to(dtype)
    labels = (torch.arange(samples) % 3).expand(tasks, samples)
    return Batch(images[0], labels, images[1], labels)


def prepared(
    name: str, network: Network, dtype: torch.dtype, steps: int = 2, **settings
) -> tuple[CompiledSums, Counted, Meta]:
    config = MethodConfig(inner_steps=steps, inner_step_size=0.3, **settings)
    method, backend = METHODS[name](network, config), Counted()
    return CompiledSums(network, method.config, LiteConfig(), backend), backend, method.init(1).to(dtype)


def gradient(name: str, network: Network, batch: Batch, **settings) -> MetaGradient:
    method = METHODS[name](network, MethodConfig(inner_steps=2, inner_step_size=0.3, **settings))
    return method.meta_gradient(method.init(1).to(batch.support_x.dtype), batch, 0.5)


def assert_same(found: MetaGradient | ChunkSums, truth: MetaGradient | ChunkSums, relative: float) -> None:
    assert found.grads.keys() == truth.grads.keys()
    scale = max(float(value.abs().max()) for value in truth.grads.values())
    for name, value in truth.grads.items():
        assert float((found.grads[name] - value).abs().max()) <= relative * scale, name
    torch.testing.assert_close(found.benefit, truth.benefit, rtol=relative, atol=relative)
    assert found.metrics.keys() == truth.metrics.keys()
    for name, metric in truth.metrics.items():
        assert float(found.metrics[name]) == pytest.approx(float(metric), rel=relative)


def traced(name: str, network: Network, batch: Batch, monkeypatch, **settings) -> MetaGradient:
    """By the traced graph, run as it is."""
    backend = Counted()
    monkeypatch.setattr("edge_adapt.cloud.outer.compiled.program_of", backend)
    found = gradient(name, network, batch, compile_steps=True, **settings)
    assert len(backend.graphs) == 1
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_traced_gradient_is_that_of_autograd(case, monkeypatch):
    name, settings = CASES[case]
    truth = gradient(name, dense_network(), dense_batch(), **settings)
    assert_same(traced(name, dense_network(), dense_batch(), monkeypatch, **settings), truth, 1e-10)


def test_convolutions_norms_and_pools_are_traced_as_well(monkeypatch):
    batch = random_batch(tasks=2, samples=3, queries=3).to(torch.float32)
    truth = gradient("maml", small_network(), batch)
    assert_same(traced("maml", small_network(), batch, monkeypatch), truth, 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("name", ["maml++", "p-meta"])
def test_kernels_that_are_recorded_on_a_gpu_give_the_gradient_of_autograd(name):
    method = METHODS[name](small_network(), MethodConfig(inner_steps=2, compile_steps=True))
    plain = METHODS[name](small_network(), MethodConfig(inner_steps=2))
    meta = plain.init(1).to("cuda", torch.float64)
    for seed in (1, 2, 3):
        batch = random_batch(tasks=2, samples=3, queries=3, seed=seed).to("cuda")
        found, truth = (each.meta_gradient(meta, batch, 0.5) for each in (method, plain))
        assert_same(found, truth, 1e-8)


def test_other_shapes_types_layers_and_orders_are_traced_anew_and_nothing_else_is():
    compiled, backend, meta = prepared("p-meta", dense_network(), torch.float64, attention=False)
    last, both = (0.0, 1.0), (0.4, 0.6)
    compiled(meta, (0, 1), dense_batch(), last, False)
    compiled(meta.to(torch.float64), (0, 1), dense_batch(), last, False)
    assert len(backend.graphs) == 1
    single = torch.float32
    others = [
        (meta, (0, 1), dense_batch(tasks=1), last, False),
        (meta, (0, 1), dense_batch(samples=5), last, False),
        (meta, (1,), dense_batch(), last, False),
        (meta, (0, 1), dense_batch(), last, True),
        (meta, (0, 1), dense_batch(), both, False),
        (meta.to(single), (0, 1), dense_batch(dtype=single), last, False),
    ]
    for number, other in enumerate(others, start=2):
        compiled(*other)
        assert len(backend.graphs) == number
    compiled(meta, (0, 1), dense_batch(), (0.1, 0.9), False)
    assert len(backend.graphs) == len(others) + 1, "other weights of the same steps"


def test_results_of_one_run_outlive_the_next():
    """A CUDA graph writes its results to the same place every time."""
    compiled, _, meta = prepared("maml", dense_network(), torch.float64)
    place: list[Tensor] = []

    def in_one_place(graph: GraphModule, device: torch.device) -> Program:
        def run(*inputs: Tensor) -> list[Tensor]:
            found = graph(*inputs)
            place[:] = place or [value.clone() for value in found]
            for held, value in zip(place, found, strict=True):
                held.copy_(value)
            return place

        return run

    compiled._backend = in_one_place
    first = compiled(meta, (0, 1), dense_batch(), (0.0, 1.0), False)
    kept = {name: value.clone() for name, value in first.grads.items()}
    other = dense_batch()
    compiled(meta, (0, 1), replace(other, support_x=other.support_x + 1), (0.0, 1.0), False)
    assert all(torch.equal(first.grads[name], value) for name, value in kept.items())


@pytest.mark.parametrize("name", ["maml++", "p-meta"])
def test_no_operation_mixes_the_tasks_device_with_the_cpu(name):
    """Traced on the device `meta`, which like a GPU's refuses operands in other memories."""
    network = Network(build_backbone("conv4", (1, 28, 28), 5, seed=0), (1, 28, 28))
    compiled, backend, meta = prepared(name, network, torch.float32, steps=1)
    images = torch.zeros(2, 1, 5, 1, 28, 28)
    batch = Batch(images[0], torch.arange(5)[None], images[1], torch.arange(5)[None]).to("meta")
    layers = tuple(range(len(network.layers)))
    found = compiled(meta.to("meta"), layers, batch, (1.0,), False)
    assert len(backend.graphs) == 1
    assert {value.device.type for value in [*found.grads.values(), *found.metrics.values()]} == {"meta"}
    with pytest.raises(RuntimeError, match=r"device"):
        compiled(meta, layers, batch, (1.0,), False)


@pytest.mark.parametrize(
    ("name", "settings", "lite", "message"),
    [
        ("maml", {"checkpoint_steps": True}, LiteConfig(), "does not go with checkpoint_steps = true"),
        ("maml", {}, LiteConfig(h=2), r"does not go with lite\.h = 2"),
        ("p-meta", {"attention_masks": "maps"}, LiteConfig(), 'does not go with attention_masks = "maps"'),
        ("fomaml", {}, LiteConfig(), "true would have no effect, fomaml does not use it"),
    ],
)
def test_what_a_program_cannot_do_is_refused(name, settings, lite, message):
    with pytest.raises(ValueError, match=f"compile_steps: .*{message}"):
        METHODS[name](small_network(), MethodConfig(compile_steps=True, **settings), lite=lite)
