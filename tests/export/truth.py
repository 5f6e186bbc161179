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
    margins: dict[str, np.ndarray] = field(default_factory=dict)


CONVS, INSTANCE_NORMS = (nn.Conv1d, nn.Conv2d), (nn.InstanceNorm1d, nn.InstanceNorm2d)
LAYERS = (*CONVS, nn.Linear, nn.GroupNorm, nn.LayerNorm, *INSTANCE_NORMS)
LAST_AXIS = (nn.Linear, nn.LayerNorm)


def layers_of(module: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in module.named_modules() if isinstance(m, LAYERS) and list(m.parameters())}


def channels_of(layer: nn.Module) -> tuple[int, int] | None:
    """Input and output channels; None for layers whose channels attention cannot tell apart."""
    if isinstance(layer, CONVS):
        return layer.in_channels, layer.out_channels
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels, layer.num_channels
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        return 2 * tuple(layer.normalized_shape)
    return None


def normalised(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What forward attention looks at: of a norm its x_hat, else the input."""
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(x, layer.num_groups, eps=layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    return x


def random_attention(module: nn.Module, seed: int, hidden: int | None = None, scale: float = 0.7) -> Modules:
    """Modules for every layer but the last, with weights large enough that pi is far from uniform."""
    rng = np.random.default_rng(seed)
    found: Modules = {}
    for name, layer in list(layers_of(module).items())[:-1]:
        widths = channels_of(layer)
        if widths is None:
            continue
        found[name] = {}
        for side, channels in zip(SIDES, widths, strict=True):
            width = hidden or channels
            shapes = ((width, channels), (width,), (channels, width), (channels,))
            found[name][side] = AttentionModule(
                *(rng.normal(0, scale, shape).astype(np.float32) for shape in shapes)
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
    last = {name for name, layer in layers_of(module).items() if isinstance(layer, LAST_AXIS)}
    chosen = [_choose(sample, last, attention or {}, settings or AttentionSettings()) for sample in samples]
    for key in chosen[0]:
        gammas, margins = zip(*(choice[key] for choice in chosen), strict=True)
        result.gammas[key], result.margins[key] = np.stack(gammas), np.array(margins)
        side, _, layer = key.partition("::")
        result.keeps[f"keep::{layer}::{side}"] = (result.gammas[key] > 0).astype(np.float64)
    for name, layer in layers_of(module).items():
        for part, _ in layer.named_parameters():
            scaled = [
                weight[n] * _scaled(layer, name, part, sample, chosen[n]) for n, sample in enumerate(samples)
            ]
            result.grads[f"grad::{name}.{part}"] = np.sum(scaled, axis=0)
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
            inputs[name] = normalised(layer, args[0])
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


def _choose(sample: _Sample, last: set[str], attention: Modules, settings: AttentionSettings):
    """(gamma, margin) by `fw::LAYER` and `bw::LAYER`; the layers `last` have their channels on the last axis."""
    found = {}
    normalize = {"rms": "rms", "raw": "none"}[settings.bw_input]
    for name, modules in attention.items():
        seen, gradient = sample.seen[name], sample.output_grads[name]
        if name in last:
            seen, gradient = np.moveaxis(seen, -1, 1), np.moveaxis(gradient, -1, 1)
        found[f"fw::{name}"] = gamma_of(modules["fw"], seen, settings.rho_fw, settings.cap, "none")
        found[f"bw::{name}"] = gamma_of(modules["bw"], gradient, settings.rho_bw, None, normalize)
    return found


def _scaled(layer, name, part, sample, chosen) -> np.ndarray:
    grad = sample.grads[f"{name}.{part}"]
    if f"fw::{name}" not in chosen:
        return grad
    return grad * _spread(layer, part, chosen[f"fw::{name}"][0], chosen[f"bw::{name}"][0], grad.shape)


def _spread(layer, part, fw, bw, shape) -> np.ndarray:
    """gamma for every entry of a parameter: the note on groups in docs/program.md, pair by pair."""
    gamma = np.ones(shape)
    for output in range(shape[0]):
        gamma[output] = bw[output]
        if part == "weight" and isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            gamma[output] *= fw[output]
        elif part == "weight":
            groups = layer.groups if isinstance(layer, CONVS) else 1
            for inner in range(shape[1]):
                gamma[output, inner] *= fw[output * groups // shape[0] * shape[1] + inner]
    return gamma


def gamma_of(module: AttentionModule, x: np.ndarray, rho: float, cap: int | None, normalize: str):
    """gamma of one sample, x (1, C, ...), p-Meta Alg. 1 word for word; and the margin of its selection."""
    w1, b1, w2, b2 = (np.asarray(value, np.float64) for value in (module.w1, module.b1, module.w2, module.b2))
    pooled = x.reshape(x.shape[1], -1).mean(1)
    if normalize == "rms":
        pooled = pooled / (np.sqrt((pooled**2).mean()) + 1e-12)
    logits = w2 @ np.maximum(w1 @ pooled + b1, 0) + b2
    pi = np.exp(logits - logits.max())
    pi /= pi.sum()
    keep, margin = selection(pi, rho, cap)
    return len(pi) * pi * keep / (pi * keep).sum(), margin


def selection(pi: np.ndarray, rho: float, cap: int | None) -> tuple[np.ndarray, float]:
    """1 for kept channels: drop the smallest, lower index first, until they reach rho and the cap.

    The margin is how much a sum or an order would have to change for another selection.
    """
    order = sorted(range(len(pi)), key=lambda channel: (pi[channel], channel))
    total, dropped, margin = 0.0, 0, np.inf
    while total < rho:
        total += pi[order[dropped]]
        dropped += 1
        margin = min(margin, abs(total - rho))
    dropped = max(dropped, 0 if cap is None else len(pi) - cap)
    dropped = min(dropped, len(pi) - 1)
    keep = np.ones(len(pi))
    keep[order[:dropped]] = 0
    if dropped:
        margin = min(margin, pi[order[dropped]] - pi[order[dropped - 1]])
    return keep, margin
