"""p-Meta written out plainly: one task at a time, torch's own layers, one attention module at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from edge_adapt.cloud.inner.base import Batch, Meta, MethodConfig
from edge_adapt.cloud.inner.network import Network
from torch import Tensor, nn
from torch.nn import functional as F


def grouped(channels: int) -> nn.Module:
    """A GroupNorm of two groups."""
    return nn.GroupNorm(2, channels)


def small_network(
    seed: int = 0,
    size: int = 8,
    ways: int = 3,
    smooth: bool = False,
    norm: Callable[[int], nn.Module] = grouped,
) -> Network:
    """Two convolutions (the second with two groups), two norms, a fully connected layer; L = 5.

    smooth: softplus and average pooling, so that finite differences cross no kink.
    norm: makes a norm by its channels.
    """
    relu, pool = (nn.Softplus, nn.AvgPool2d) if smooth else (nn.ReLU, nn.MaxPool2d)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential()
        for name, part in {
            "conv1": nn.Conv2d(2, 4, 3, padding=1),
            "norm1": norm(4),
            "relu1": relu(),
            "pool1": pool(2),
            "conv2": nn.Conv2d(4, 6, 3, padding=1, groups=2),
            "norm2": norm(6),
            "relu2": relu(),
            "pool2": pool(2),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(6 * (size // 4) ** 2, ways),
        }.items():
            module.add_module(name, part)
        for name, value in module.named_parameters():
            if "norm" in name:
                nn.init.normal_(value, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return Network(module.double(), (2, size, size))


def random_batch(tasks: int = 3, samples: int = 6, queries: int = 5, seed: int = 1, ways: int = 3) -> Batch:
    """Tasks of normal noise, 2 x 8 x 8, labels 0, 1, 2, 0, ..."""
    generator = torch.Generator().manual_seed(seed)

    def images(count: int) -> Tensor:
        return torch.randn(tasks, count, 2, 8, 8, dtype=torch.float64, generator=generator)

    def labels(count: int) -> Tensor:
        return (torch.arange(count) % ways).expand(tasks, count).contiguous()

    return Batch(images(samples), labels(samples), images(queries), labels(queries))


def plain_kept(pi: Tensor, rho: float, cap: int | None) -> Tensor:
    """Drop the smallest count of ascending entries whose sum reaches rho, and what exceeds the cap; one stays."""
    values = pi.detach().tolist()
    order = sorted(range(len(values)), key=lambda c: (values[c], c))
    kept = torch.ones(len(pi), dtype=torch.bool)
    total, dropped = 0.0, 0
    least = len(pi) - (cap or len(pi))
    while (dropped < least or (rho > 0 and total < rho)) and dropped < len(pi) - 1:
        total += values[order[dropped]]
        kept[order[dropped]] = False
        dropped += 1
    return kept


def plain_gamma(
    params: Mapping[str, Tensor], key: str, pooled: Tensor, rho: float, cap: int | None = None
) -> Tensor:
    """One module on pooled inputs (N, C), mean over the batch; gamma (C,)."""
    w1, b1, w2, b2 = (params[f"attention.{key}.{part}"] for part in (
        "hidden.weight", "hidden.bias", "out.weight", "out.bias"))  # fmt: skip
    logits = F.linear(F.relu(F.linear(pooled, w1, b1)), w2, b2).mean(0)
    pi = F.softmax(logits, -1)
    clipped = torch.where(plain_kept(pi, rho, cap), pi, torch.zeros_like(pi))
    clipped = clipped / clipped.sum() * len(pi)
    return len(pi) * pi + (clipped - len(pi) * pi).detach()


def gamma_of_weight(part: nn.Module, fw: Tensor, bw: Tensor) -> Tensor:
    """gamma in the shape of a layer's weight, entry by entry."""
    if isinstance(part, nn.GroupNorm | nn.BatchNorm2d):
        return fw * bw
    if isinstance(part, nn.Linear):
        return bw[:, None] * fw[None, :]
    assert isinstance(part, nn.Conv2d)
    groups, c_in, c_out = part.groups, part.in_channels, part.out_channels
    rows = [
        torch.stack([bw[b] * fw[(b * groups // c_out) * (c_in // groups) + a] for a in range(c_in // groups)])
        for b in range(c_out)
    ]
    return torch.stack(rows)[:, :, None, None]


class PlainTask:
    """Inner steps on one task with hooks for what attention sees."""

    def __init__(self, network: Network, config: MethodConfig, learned: Mapping[str, Tensor]) -> None:
        self.network, self.config, self.learned = network, config, learned

    def forward(self, weights: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Logits, and per layer its module, input and output."""
        seen: dict[str, Any] = {}
        hooks = []
        for layer in self.network.layers:
            part = self.network.module.get_submodule(layer.name)

            def note(part: nn.Module, args: Any, y: Tensor, name: str = layer.name) -> None:
                seen[name] = (part, args[0], y)

            hooks.append(part.register_forward_hook(note))
        logits = torch.func.functional_call(self.network.module, dict(weights), (x,))
        for hook in hooks:
            hook.remove()
        return logits, seen

    def step(self, weights: dict[str, Tensor], alpha: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """w <- w - alpha * gamma * g for every layer, with a graph."""
        logits, seen = self.forward(weights, x)
        loss = F.cross_entropy(logits, y)
        names, outputs = list(weights), [found[2] for found in seen.values()]
        grads = torch.autograd.grad(loss, [*weights.values(), *outputs], create_graph=True)
        g = dict(zip(names, grads[: len(names)], strict=True))
        gy = dict(zip(seen, grads[len(names) :], strict=True))
        updated = {}
        for index, layer in enumerate(self.network.layers):
            gammas = self.gammas(layer.name, seen, gy, len(y)) if self.attends(index) else None
            for name in self.network.names(index):
                scale: Any = 1.0
                if gammas is not None:
                    fw, bw = gammas
                    part = seen[layer.name][0]
                    scale = bw if name.endswith("bias") else gamma_of_weight(part, fw, bw)
                updated[name] = weights[name] - alpha[index] * (scale * g[name])
        return updated

    def sample_step(
        self, weights: dict[str, Tensor], alpha: Tensor, x: Tensor, y: Tensor
    ) -> dict[str, Tensor]:
        """w <- w - alpha * mean_n(gamma_n * g_n), every sample by itself."""
        moved = [self.step(weights, alpha, x[n : n + 1], y[n : n + 1]) for n in range(len(y))]
        return {name: torch.stack([part[name] for part in moved]).mean(0) for name in weights}

    def attends(self, index: int) -> bool:
        return self.config.attention and not self.network.layers[index].is_output

    def gammas(
        self, name: str, seen: Mapping[str, Any], gy: Mapping[str, Tensor], samples: int
    ) -> tuple[Tensor, Tensor]:
        part, x, _ = seen[name]
        if isinstance(part, nn.GroupNorm):
            x = F.group_norm(x, part.num_groups, eps=part.eps)
        if isinstance(part, nn.BatchNorm2d):
            x = F.batch_norm(x, None, None, training=True, eps=part.eps)
        pooled_x, pooled_g = (
            value.flatten(2).mean(2) if value.dim() == 4 else value for value in (x, gy[name] * samples)
        )
        if self.config.bw_input == "rms":
            pooled_g = pooled_g / (pooled_g.detach().square().mean(1, keepdim=True).sqrt() + 1e-12)
        rho_fw, rho_bw = self.config.rho_fw, self.config.rho_bw
        fw, bw = torch.ones_like(pooled_x[0]), torch.ones_like(pooled_g[0])
        if rho_fw is not None:
            fw = plain_gamma(self.learned, f"{name}.fw", pooled_x, rho_fw, self.config.cap)
        if rho_bw is not None:
            bw = plain_gamma(self.learned, f"{name}.bw", pooled_g, rho_bw)
        return fw, bw


def plain_query_loss(
    network: Network,
    config: MethodConfig,
    learned: Mapping[str, Tensor],
    alpha: Tensor,
    batch: Batch,
    kind: type[PlainTask] = PlainTask,
) -> Tensor:
    """Mean over tasks of the query loss after all inner steps."""
    task = kind(network, config, learned)
    losses = []
    for t in range(len(batch)):
        weights = {name: learned[name] for name in network.parameters}
        for k in range(len(alpha)):
            step = task.sample_step if config.attention_over == "sample" else task.step
            weights = step(weights, alpha[k], batch.support_x[t], batch.support_y[t])
        logits, _ = task.forward(weights, batch.query_x[t])
        losses.append(F.cross_entropy(logits, batch.query_y[t]))
    return torch.stack(losses).mean()


def plain_gradient(
    network: Network, config: MethodConfig, meta: Meta, batch: Batch, kind: type[PlainTask] = PlainTask
) -> dict[str, Tensor]:
    """Second-order outer gradient by torch's own double backward."""
    learned = {name: value.detach().requires_grad_() for name, value in meta.learned.items()}
    alpha = learned.get("alpha", meta.alpha)
    loss = plain_query_loss(network, config, learned, alpha, batch, kind)
    found = torch.autograd.grad(loss, list(learned.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(learned, found, strict=True))
