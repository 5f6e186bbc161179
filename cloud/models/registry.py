"""The table of backbones: what each takes, where it comes from, and how one is built by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from .conv4 import Conv4
from .ds_cnn import DSCNN
from .efficientnet import EfficientNet
from .mlp import MLP
from .mobilenet_v2 import MobileNetV2
from .mobilenet_v3 import MobileNetV3Small
from .motion_cnn import MotionCNN
from .options import checked_options
from .parts import Shape
from .resnet import ResNet18, ResNet20
from .resnet12 import ResNet12
from .vit import ViT


@dataclass(frozen=True)
class Backbone:
    """One entry of the table.

    Attributes:
        build: the module's class, called with (sample_shape, outputs) and its own options by name.
        kind: of samples: "image" (C, H, W) from pixels, or "array" (float32 of any shape).
        sample_shape: what the paper uses; other sizes work too.
        summary: one line.
        paper: authors, venue, year.
        meta_trains: whether `cloud.inner` can adapt all its layers; if not, it is for export of trained weights.
    """

    build: Callable[..., nn.Module]
    kind: Literal["image", "array"]
    sample_shape: Shape
    summary: str
    paper: str
    meta_trains: bool = True

    @property
    def line(self) -> str:
        """Summary, sample shape, source, and whether it can only be exported."""
        shape = " x ".join(map(str, self.sample_shape))
        note = "" if self.meta_trains else "; export only"
        return f"{self.summary}; {self.kind} {shape}{note} ({self.paper})"


BACKBONES: dict[str, Backbone] = {
    "conv4": Backbone(
        Conv4, "image", (3, 84, 84), "4 x [3x3 conv 32, norm, ReLU, 2x2 pool], fc", "Finn et al., ICML 2017"
    ),
    "resnet12": Backbone(
        ResNet12,
        "image",
        (3, 84, 84),
        "4 blocks of three 3x3 convs and a 1x1 shortcut, 64 to 512 channels",
        "Oreshkin et al., NeurIPS 2018",
    ),
    "resnet18": Backbone(
        ResNet18, "image", (3, 224, 224), "8 basic blocks, 64 to 512 channels", "He et al., CVPR 2016"
    ),
    "resnet20": Backbone(
        ResNet20, "image", (3, 32, 32), "9 basic blocks, 16 to 64 channels", "He et al., CVPR 2016"
    ),
    "mobilenet-v2": Backbone(
        MobileNetV2,
        "image",
        (3, 224, 224),
        "17 inverted residuals, ReLU6, any width",
        "Sandler et al., CVPR 2018",
    ),
    "mobilenet-v3-small": Backbone(
        MobileNetV3Small,
        "image",
        (3, 224, 224),
        "11 inverted residuals, squeeze-excite, hard-swish, any width",
        "Howard et al., ICCV 2019",
    ),
    "efficientnet-b0": Backbone(
        EfficientNet,
        "image",
        (3, 224, 224),
        "16 inverted residuals, squeeze-excite, SiLU, any width and depth",
        "Tan and Le, ICML 2019",
    ),
    "ds-cnn": Backbone(
        DSCNN,
        "array",
        (1, 49, 10),
        "keywords from MFCC frames: conv, 4 depthwise separable convs, fc",
        "Zhang et al., 2017",
    ),
    "motion-cnn": Backbone(
        MotionCNN,
        "array",
        (9, 128),
        "motion sensors: 4 x [1-D conv 64, norm, ReLU, pool], fc",
        "after Ordonez and Roggen, Sensors 2016",
        meta_trains=False,
    ),
    "mlp": Backbone(
        MLP, "array", (20,), "feature vectors: two hidden layers of 100, ReLU", "Finn et al., ICML 2017"
    ),
    "vit": Backbone(
        ViT,
        "image",
        (3, 32, 32),
        "4 transformer blocks, 4 heads, 4x4 patches, mean over tokens",
        "Dosovitskiy et al., ICLR 2021",
        meta_trains=False,
    ),
}


def build_backbone(
    name: str, sample_shape: Shape, outputs: int, seed: int, options: Mapping[str, object] | None = None
) -> nn.Module:
    """A freshly initialised backbone; the same seed gives the same weights, torch's global state is kept.

    Args:
        name: one of `BACKBONES`.
        sample_shape: of one sample, without the batch.
        outputs: classes, or values to regress on.
        seed: of the initial weights.
        options: the backbone's own, by name, such as {"norm": "batch"}.

    Raises:
        ValueError: no backbone has that name, it has no such option, or it cannot take such samples.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}")
    build = BACKBONES[name].build
    chosen = checked_options(name, build, options or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(sample_shape, outputs, **chosen)
