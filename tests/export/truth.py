"""An independent truth: plain torch autograd, one sample at a time, meta attention written out in loops."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from edge_adapt.export.source import SIDES, AttentionModule, AttentionSettings
from torch import nn
from torch.nn import functional as F

Modules = dict[str, dict[str, AttentionModule]]


@dataclass
class Truth:
    """What one adaptation step computes; float64."""

    loss: float = 0.0
    logits: np.ndarray = field(default_factory=lambda: np.zeros(0))
    grads: dict[str, np.ndarray] = field(default_factory=dict)
    output_grads: dict[str, np.ndarray] = field(default_factory=dict)
    gammas: dict[str, np.ndarray] = field(default_factory=dict)
    keeps: dict[str, np.ndarray] = field(default_factory=dict)


def layers_of(module: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.GroupNorm))}


def channels_of(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.num_channels, layer.num_channels


def random_attention(module: nn.Module, seed: int, hidden: int | None = None) -> Modules:
    """Modules for every layer but the last, with weights large enough that pi is far from uniform."""
    rng = np.random.default_rng(seed)
    found: Modules = {}
    for name, layer in list(layers_of(module).items())[:-1]:
        found[name] = {}
        for side, channels in zip(SIDES, channels_of(layer), strict=True):
            width = hidden or channels
            shapes = ((width, channels), (width,), (channels, width), (channels,))
            found[name][side] = AttentionModule(
                *(rng.normal(0, 0.7, shape).astype(np.float32) for shape in shapes)
            )
    return found


def truth(
    module: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    sample_weight: np.ndarray | None = None,
    class_mask: np.ndarray | None = None,
    attention: Modules | None = None,
    settings: AttentionSettings | None = None,
    keeps: dict[str, np.ndarray] | None = None,
) -> Truth:
    """One step's loss and gradients for a float64 module."""
    count = len(images)
    weight = np.full(count, 1 / count) if sample_weight is None else sample_weight
    samples = [_sample(module, images[n], int(labels[n]), class_mask) for n in range(count)]
    result = Truth()
    result.loss = float(sum(weight[n] * samples[n].loss for n in range(count)))
    result.logits = np.concatenate([sample.logits for sample in samples])
    for name in samples[0].output_grads:
        result.output_grads[name] = np.concatenate([sample.output_grads[name] for sample in samples])
    for n, sample in enumerate(samples):
        recorded = None if keeps is None else {name: keep[n] for name, keep in keeps.items()}
        _add_sample(
            result, module, sample, weight[n], attention or {}, settings or AttentionSettings(), recorded
        )
    result.gammas = {name: np.stack(value) for name, value in result.gammas.items()}
    result.keeps = {name: (value > 0).astype(np.float64) for name, value in result.gammas.items()}
    return result


@dataclass
class _Sample:
    loss: float
    logits: np.ndarray
    grads: dict[str, np.ndarray]
    seen: dict[str, np.ndarray]
    output_grads: dict[str, np.ndarray]


def _sample(module: nn.Module, image: np.ndarray, label: int, class_mask: np.ndarray | None) -> _Sample:
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def hook(layer, args, output):
            x = args[0]
            inputs[name] = (
                F.group_norm(x, layer.num_groups, eps=layer.eps) if isinstance(layer, nn.GroupNorm) else x
            )
            outputs[name] = output

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers_of(module).items()]
    try:
        logits = module(torch.from_numpy(image[None]).double())
    finally:
        for handle in handles:
            handle.remove()
    used = (
        torch.arange(logits.shape[1]) if class_mask is None else torch.from_numpy(np.flatnonzero(class_mask))
    )
    loss = F.cross_entropy(logits[:, used], torch.tensor([used.tolist().index(label)]))
    params = dict(module.named_parameters())
    grads = torch.autograd.grad(loss, [*params.values(), *outputs.values()])
    numbers = [grad.numpy() for grad in grads]
    return _Sample(
        loss.item(),
        logits.detach().numpy(),
        dict(zip(params, numbers, strict=False)),
        {name: value.detach().numpy() for name, value in inputs.items()},
        dict(zip(outputs, numbers[len(params) :], strict=True)),
    )


def _add_sample(result, module, sample, weight, attention, settings, recorded) -> None:
    for name, layer in layers_of(module).items():
        fw = bw = None
        if name in attention:
            fw, bw = _gammas(name, attention[name], sample, settings, recorded)
            result.gammas.setdefault(f"fw::{name}", []).append(fw)
            result.gammas.setdefault(f"bw::{name}", []).append(bw)
        for part, _ in layer.named_parameters():
            grad = sample.grads[f"{name}.{part}"]
            if fw is not None:
                grad = grad * _spread(layer, part, fw, bw, grad.shape)
            key = f"grad::{name}.{part}"
            result.grads[key] = result.grads.get(key, 0) + weight * grad


def _gammas(name, modules, sample, settings, recorded):
    keeps = [None if recorded is None else recorded[f"keep::{name}::{side}"] for side in SIDES]
    normalize = {"rms": "rms", "raw": "none"}[settings.bw_input]
    fw = gamma_of(modules["fw"], sample.seen[name], settings.rho_fw, settings.cap, "none", keeps[0])
    bw = gamma_of(modules["bw"], sample.output_grads[name], settings.rho_bw, None, normalize, keeps[1])
    return fw, bw


def _spread(layer, part, fw, bw, shape) -> np.ndarray:
    """gamma for every entry of a parameter, index by index."""
    gamma = np.ones(shape)
    for index in np.ndindex(shape):
        value = bw[index[0]]
        if part == "weight" and isinstance(layer, nn.GroupNorm):
            value *= fw[index[0]]
        elif part == "weight":
            groups, inputs, outputs = 1, shape[1], shape[0]
            if isinstance(layer, nn.Conv2d):
                groups, inputs = layer.groups, layer.in_channels
            value *= fw[index[0] * groups // outputs * (inputs // groups) + index[1]]
        gamma[index] = value
    return gamma


def gamma_of(
    module: AttentionModule,
    x: np.ndarray,
    rho: float,
    cap: int | None,
    normalize: str,
    keep: np.ndarray | None,
) -> np.ndarray:
    """gamma of one sample, x (1, C, ...): p-Meta Alg. 1 word for word."""
    w1, b1, w2, b2 = (np.asarray(value, np.float64) for value in (module.w1, module.b1, module.w2, module.b2))
    pooled = x.reshape(x.shape[1], -1).mean(1)
    if normalize == "rms":
        pooled = pooled / (np.sqrt((pooled**2).mean()) + 1e-12)
    logits = w2 @ np.maximum(w1 @ pooled + b1, 0) + b2
    pi = np.exp(logits - logits.max())
    pi /= pi.sum()
    keep = selection(pi, rho, cap) if keep is None else keep
    return len(pi) * pi * keep / (pi * keep).sum()


def selection(pi: np.ndarray, rho: float, cap: int | None) -> np.ndarray:
    """1 for kept channels: drop the smallest, lower index first, until they reach rho and the cap."""
    order = sorted(range(len(pi)), key=lambda channel: (pi[channel], channel))
    total, dropped = 0.0, 0
    while total < rho:
        total += pi[order[dropped]]
        dropped += 1
    dropped = max(dropped, 0 if cap is None else len(pi) - cap)
    keep = np.ones(len(pi))
    keep[order[: min(dropped, len(pi) - 1)]] = 0
    return keep
