"""The self-test of a bundle: a few samples, and what PyTorch computes from them in float64.

It shares no code with the program: gradients are torch autograd's, sample by sample, and attention is
applied to every sample's own gradient before the mean (docs/bundle.md).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..edge.inputs import InputSpec
from ..edge.reference.interpret import interpret
from .adaptation import adaptation, tensors
from .loss_truth import TRUTHS, as_tensors
from .losses import loss_named
from .source import AttentionModule, Side, Source

if TYPE_CHECKING:
    from ..edge.inputs import ArraySpec

SAMPLES, CANDIDATES, ENTRIES, SEED = 4, 16, 64, 2023


@dataclass(frozen=True)
class Sample:
    """One sample's own loss and scaled gradients, and how far its channel selections are from changing."""

    loss: float
    gradients: dict[str, Tensor]
    margin: float


def selftest(source: Source) -> dict[str, NDArray[Any]]:
    """Tensors of `selftest.safetensors`.

    Samples are random. Of several candidates those are taken whose channel selections have the widest
    margins, so that float32 rounding on a device cannot choose other channels.

    Args:
        source: the model; one without a torch module is run by the NumPy meaning of its program in float64.
    """
    images = random_samples(source.input, CANDIDATES, SEED)
    shape = source.captured.output_shape
    loss_named(source.loss, source.label_smoothing).check(shape)
    answers = TRUTHS[source.loss].answers(np.random.default_rng(SEED + 1), shape, CANDIDATES)
    inputs = source.input.preprocess(images).astype(np.float64)
    if source.module is None:
        samples = [interpreted(source, inputs[n : n + 1], _of(answers, n)) for n in range(SAMPLES)]
    else:
        module = copy.deepcopy(source.module).to("cpu", torch.float64).eval()
        rows = torch.from_numpy(inputs)
        tried = CANDIDATES if source.attention else SAMPLES
        samples = [_run(source, module, rows[n : n + 1], _of(answers, n)) for n in range(tried)]
    order = sorted(range(len(samples)), key=lambda n: -samples[n].margin)
    chosen = sorted(order[:SAMPLES])
    tests: dict[str, NDArray[Any]] = {
        "images": images[chosen],
        **{part: values[chosen] for part, values in answers.items()},
        "alpha_mask": np.array([name in source.updated_layers for name in source.layer_names], np.uint8),
        "loss": np.array([np.mean([samples[n].loss for n in chosen])], np.float32),
    }
    for name in samples[0].gradients:
        mean = torch.stack([samples[n].gradients[name] for n in chosen]).mean(0)
        tests |= digest(name, mean.flatten())
    return tests


def random_samples(spec: InputSpec | ArraySpec, count: int, seed: int) -> NDArray[Any]:
    """Random samples (count, ...) as a support set keeps them."""
    rng = np.random.default_rng(seed)
    if isinstance(spec, InputSpec):
        return rng.integers(0, 256, (count, *spec.pixel_shape), np.uint8)
    return rng.normal(size=(count, *spec.shape)).astype(np.float32)


def _of(answers: Mapping[str, NDArray[Any]], sample: int) -> dict[str, NDArray[Any]]:
    return {part: values[sample : sample + 1] for part, values in answers.items()}


def interpreted(source: Source, sample: NDArray[np.float64], answers: Mapping[str, NDArray[Any]]) -> Sample:
    """Loss and gradients of one sample (1, ...) by the NumPy meaning of the program, in float64."""
    program = adaptation(source)
    updated = [layer for layer in program.layers if layer.name in source.updated_layers]
    names = {grad: param for layer in updated for param, grad in zip(layer.params, layer.grads, strict=True)}
    values: dict[str, NDArray[Any]] = {
        **tensors(source, program),
        "images": sample,
        **answers,
        "sample_weight": np.ones(1),
    }
    if "class_mask" in program.inputs:
        values["class_mask"] = np.ones(source.captured.output_shape)
    found = interpret(program, values, ["loss", *names], np.float64)
    gradients = {param: torch.from_numpy(found[grad]) for grad, param in names.items()}
    return Sample(float(found["loss"]), gradients, float("inf"))


def digest(name: str, gradient: Tensor) -> dict[str, NDArray[Any]]:
    """Norm and entries of a flat tensor."""
    count = min(ENTRIES, len(gradient))
    indices = torch.arange(count) * len(gradient) // count
    return {
        f"norm::{name}": np.array([gradient.norm()], np.float32),
        f"entries::{name}": gradient[indices].numpy().astype(np.float32),
    }


def _run(source: Source, module: nn.Module, image: Tensor, answers: Mapping[str, NDArray[Any]]) -> Sample:
    """Own-loss gradients of the updated layers' parameters, attention applied."""
    attended = [
        (name, module.get_submodule(name)) for name in source.attention if name in source.updated_layers
    ]
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    handles = [layer.register_forward_hook(_watch(seen, name)) for name, layer in attended]
    try:
        outputs = module(image)
    finally:
        for handle in handles:
            handle.remove()
    loss = TRUTHS[source.loss].value(module, outputs, as_tensors(answers), source.label_smoothing)
    params = _updated_parameters(source, module)
    wanted = [*params.values(), *(seen[name][1] for name, _ in attended)]
    found = torch.autograd.grad(loss, wanted) if wanted else ()
    gradients = dict(zip(params, found, strict=False))
    slopes = dict(zip((name for name, _ in attended), found[len(params) :], strict=True))
    margins = [float("inf")]
    for name, layer in attended:
        sides = source.attention[name]
        looked_at = {"fw": _pooled(layer, seen[name][0]), "bw": _pooled(layer, slopes[name])}
        gammas = {side: _gamma(source, sides[side], side, looked_at[side], margins) for side in sides}
        for part, _ in layer.named_parameters():
            gradients[f"{name}.{part}"] = _scaled(layer, part, gradients[f"{name}.{part}"], gammas)
    origins = source.captured.origins
    turned = {name: g.mT if origins[name].transposed else g for name, g in gradients.items()}
    return Sample(loss.item(), turned, min(margins))


def _updated_parameters(source: Source, module: nn.Module) -> dict[str, Tensor]:
    """The torch parameters of the layers that are ever updated, by their names in the program."""
    network, params = source.captured, dict(module.named_parameters())
    layers = [layer for layer in network.program.layers if layer.name in source.updated_layers]
    return {name: params[network.origins[name].source] for layer in layers for name in layer.params}


def _watch(seen: dict[str, tuple[Tensor, Tensor]], name: str) -> Any:
    """A hook that notes what forward attention looks at (norms: the normalised input) and the output."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        if isinstance(layer, nn.GroupNorm):
            x = F.group_norm(x, layer.num_groups, eps=layer.eps)
        elif isinstance(layer, nn.LayerNorm):
            x = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
        seen[name] = (x.detach(), output)

    return hook


def _pooled(layer: nn.Module, x: Tensor) -> Tensor:
    """Mean of one sample (1, ...) over all axes but its channels: the last of linear layers and LayerNorms."""
    if isinstance(layer, (nn.Linear, nn.LayerNorm)):
        return x.reshape(-1, x.shape[-1]).mean(0)
    return x.reshape(x.shape[1], -1).mean(1)


def _gamma(
    source: Source, module: AttentionModule, side: Side, pooled: Tensor, margins: list[float]
) -> Tensor:
    """gamma (C,) of one sample; appends the margin of its selection."""
    settings = source.settings
    rho, cap = (settings.rho_fw, settings.cap) if side == "fw" else (settings.rho_bw, None)
    if side == "bw" and settings.bw_input == "rms":
        pooled = pooled / (pooled.square().mean().sqrt() + 1e-12)
    w1, b1, w2, b2 = (torch.from_numpy(np.asarray(part)).double() for part in _parts(module))
    weights = (w2 @ (w1 @ pooled + b1).relu() + b2).softmax(0)
    values, order = weights.sort(stable=True)
    sums = values.cumsum(0)
    dropped = int((sums < rho).sum()) + 1 if rho > 0 else 0
    if rho > 0:
        margins.append(float((sums - rho).abs().min()))
    dropped = min(max(dropped, 0 if cap is None else len(values) - cap), len(values) - 1)
    if dropped:
        margins.append(float(values[dropped] - values[dropped - 1]))
    kept = weights.clone()
    kept[order[:dropped]] = 0
    return len(kept) * kept / kept.sum()


def _parts(module: AttentionModule) -> Sequence[NDArray[np.float32]]:
    return module.w1, module.b1, module.w2, module.b2


def _scaled(layer: nn.Module, part: str, gradient: Tensor, gammas: Mapping[Side, Tensor]) -> Tensor:
    """gamma times the gradient: bw along outputs; fw along a weight's inputs, of norms along its channels."""
    if "bw" in gammas:
        gradient = gradient * gammas["bw"].reshape(-1, *[1] * (gradient.dim() - 1))
    if "fw" not in gammas or part != "weight":
        return gradient
    fw = gammas["fw"]
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        by_output = fw.reshape(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, 0)
        return gradient * by_output.reshape(*by_output.shape, *[1] * (gradient.dim() - 2))
    return gradient * fw
