"""The cases of benchmarks/edge.py: network, layers that learn, samples, and what is to be reached."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from edge_adapt.cloud.models import build_backbone
from edge_adapt.export import InputSpec, export_bundle
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("export", "cloud/models")
WAYS, STEP_SIZE, SEED = 5, 1e-3, 0


@dataclass(frozen=True)
class Case:
    """One network with random weights, its norms GroupNorm, and a mask.

    Attributes:
        backbone: by its name in `BACKBONES`.
        pixels: side of the images, three channels.
        layers: patterns of the layers that learn; None: all.
        samples: in the support set, 5 classes.
        steps: gradient steps.
        memory_budget: of the engine that plans, in bytes.
        time_goal: at most this share of onnxruntime-training's seconds.
        memory_goal: at most this share of its growth.
    """

    backbone: str
    pixels: int
    layers: tuple[str, ...] | None
    samples: int
    steps: int
    memory_budget: int
    time_goal: float
    memory_goal: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one sample: channels, height, width."""
        return 3, self.pixels, self.pixels

    def module(self) -> nn.Module:
        """Return the network, the same weights every time."""
        return build_backbone(self.backbone, self.shape, WAYS, SEED)


LAST_BLOCKS = ("blocks.14.*", "blocks.15.*", "blocks.16.*", "head.*", "fc")
CASES: Mapping[str, Case] = {
    "resnet12-all": Case("resnet12", 84, None, 25, 1, 77_000_000, 0.8, 0.4),
    "resnet12-last-block": Case("resnet12", 84, ("block4.*", "fc"), 25, 5, 49_500_000, 0.5, 0.4),
    "resnet12-head": Case("resnet12", 84, ("fc",), 25, 5, 37_200_000, 0.5, 0.55),
    "conv4-all": Case("conv4", 84, None, 25, 1, 13_000_000, 0.8, 0.5),
    "mobilenetv2-last3": Case("mobilenet-v2", 224, LAST_BLOCKS, 10, 1, 31_000_000, 0.8, 0.5),
}


def bundle_of(name: str, cache: Path) -> Path:
    """Return the bundle of a case, exported where the cache has none of this version of the sources.

    Where EDGE_ADAPT_ORT_TRAINING is not set, the artifacts of onnxruntime-training need that package here.
    """
    case = CASES[name]
    path = cache / f"{name}-{_version()}"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        export_bundle(
            case.module(),
            path,
            example_input=torch.zeros(1, *case.shape),
            step_size=STEP_SIZE,
            layers=case.layers,
            steps=case.steps,
            samples=case.samples,
            input=InputSpec(*case.shape, (0.5,) * 3, (0.25,) * 3),
            name=name,
            ort_training=True,
        )
    return path


def _version() -> str:
    """Return a digest of what decides what a bundle holds, this file included."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(file for source in SOURCES for file in (ROOT / source).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
