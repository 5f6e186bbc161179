"""One outer step of second-order MAML (loss and gradient over a batch of tasks), written for each library.

The same 4Conv with GroupNorm, the same tasks, plain gradient descent inside. `higher` and the object-oriented side
of `torchopt` take one task at a time; torchopt's functional side is also mapped over the tasks (`torchopt-vmap`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from edge_adapt.cloud.inner.base import Batch, MethodConfig
from edge_adapt.cloud.inner.network import Network
from edge_adapt.cloud.models import build_backbone
from edge_adapt.cloud.outer import METHODS
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

WAYS = 5
Gradients = dict[str, Tensor]
OuterStep = Callable[[Batch], Gradients]


@dataclass(frozen=True)
class Problem:
    """What is computed, for every library alike: images, tasks and inner loop; and how our own does it.

    Attributes:
        image_size: in pixels; grey at 28 (as Omniglot), RGB otherwise (as mini-ImageNet).
        inner_steps: K.
        tasks: of one outer step.
        shots, queries: per class.
        inner_step_size: of plain gradient descent.
        device: "cpu" or "cuda".
        tasks_per_chunk, checkpoint_steps, compile_steps: settings of our own.
    """

    image_size: int
    inner_steps: int = 5
    tasks: int = 4
    shots: int = 5
    queries: int = 15
    inner_step_size: float = 0.01
    device: str = "cpu"
    tasks_per_chunk: int = 4
    checkpoint_steps: bool = False
    compile_steps: bool = False

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return (1 if self.image_size == 28 else 3, self.image_size, self.image_size)

    def module(self) -> nn.Module:
        """4Conv with GroupNorm; the same weights every time."""
        return build_backbone("conv4", self.sample_shape, WAYS, 0, {}).to(self.device)

    def batch(self, seed: int) -> Batch:
        """Tasks of images as smooth as photographs: coarse noise, enlarged, and a little fine noise.

        (Fine noise alone would favour us: torch's own max-pooling is slow on it.)
        """
        generator = torch.Generator().manual_seed(seed)
        images = [self._images(per_class, generator) for per_class in (self.shots, self.queries)]
        labels = [(torch.arange(WAYS * n) % WAYS).expand(self.tasks, -1) for n in (self.shots, self.queries)]
        return Batch(images[0], labels[0], images[1], labels[1]).to(self.device)

    def _images(self, per_class: int, generator: torch.Generator) -> Tensor:
        channels, *size = self.sample_shape
        count = self.tasks * WAYS * per_class
        coarse = torch.randn(count, channels, *(side // 4 for side in size), generator=generator)
        fine = torch.randn(count, channels, *size, generator=generator)
        images = F.interpolate(coarse, size, mode="bilinear") + 0.1 * fine
        return images.reshape(self.tasks, -1, channels, *size)


def edge_adapt(problem: Problem) -> OuterStep:
    """Our own, through the method that `meta-train` runs."""
    config = MethodConfig(
        inner_steps=problem.inner_steps,
        inner_step_size=problem.inner_step_size,
        tasks_per_chunk=problem.tasks_per_chunk,
        checkpoint_steps=problem.checkpoint_steps,
        compile_steps=problem.compile_steps,
    )
    method = METHODS["maml"](Network(problem.module(), problem.sample_shape), config)
    meta = method.init(0).to(problem.device)
    return lambda batch: method.meta_gradient(meta, batch, 0.0).grads


def higher(problem: Problem) -> OuterStep:
    """`higher.innerloop_ctx`, task by task, gradients accumulated in the module (as its MAML example does)."""
    import higher as library

    module = problem.module()
    optimizer = torch.optim.SGD(module.parameters(), lr=problem.inner_step_size)

    def step(batch: Batch) -> Gradients:
        module.zero_grad()
        for support, labels, query, answers in _tasks(batch):
            with library.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (inner, steps):
                for _ in range(problem.inner_steps):
                    steps.step(F.cross_entropy(inner(support), labels))
                (F.cross_entropy(inner(query), answers) / len(batch)).backward()
        return _collected(module)

    return step


def torchopt(problem: Problem) -> OuterStep:
    """`torchopt.MetaSGD`, task by task, gradients accumulated in the module (as its MAML example does)."""
    import torchopt as library

    module = problem.module()
    leaves = dict(module.named_parameters())
    optimizer = library.MetaSGD(module, lr=problem.inner_step_size)
    start = library.extract_state_dict(module, by="reference")
    first = library.extract_state_dict(optimizer)

    def step(batch: Batch) -> Gradients:
        for value in leaves.values():
            value.grad = None
        for support, labels, query, answers in _tasks(batch):
            for _ in range(problem.inner_steps):
                optimizer.step(F.cross_entropy(module(support), labels))
            (F.cross_entropy(module(query), answers) / len(batch)).backward()
            library.recover_state_dict(module, start)
            library.recover_state_dict(optimizer, first)
        return {name: _gradient(value) for name, value in leaves.items()}

    return step


def torchopt_vmap(problem: Problem) -> OuterStep:
    """torchopt's functional `sgd` inside `torch.func`, all tasks at once."""
    import torchopt as library

    module = problem.module()
    weights = {name: value.detach() for name, value in module.named_parameters()}
    optimizer = library.sgd(lr=problem.inner_step_size)

    def loss(weights: Gradients, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(module, weights, (images,)), labels)

    def task(weights: Gradients, support: Tensor, labels: Tensor, query: Tensor, answers: Tensor) -> Tensor:
        state = optimizer.init(weights)
        for _ in range(problem.inner_steps):
            updates, state = optimizer.update(grad(loss)(weights, support, labels), state, inplace=False)
            weights = library.apply_updates(weights, updates, inplace=False)
        return loss(weights, query, answers)

    def mean(weights: Gradients, batch: Batch) -> Tensor:
        losses: Tensor = vmap(task, (None, 0, 0, 0, 0))(
            weights, batch.support_x, batch.support_y, batch.query_x, batch.query_y
        )
        return losses.mean()

    return lambda batch: grad(mean)(weights, batch)


def _tasks(batch: Batch) -> zip[tuple[Tensor, ...]]:
    return zip(batch.support_x, batch.support_y, batch.query_x, batch.query_y, strict=True)


def _collected(module: nn.Module) -> Gradients:
    return {name: _gradient(value) for name, value in module.named_parameters()}


def _gradient(value: Tensor) -> Tensor:
    assert value.grad is not None
    return value.grad


LIBRARIES: dict[str, Callable[[Problem], OuterStep]] = {
    "edge-adapt": edge_adapt,
    "higher": higher,
    "torchopt": torchopt,
    "torchopt-vmap": torchopt_vmap,
}
