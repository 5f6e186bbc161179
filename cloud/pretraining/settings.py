"""What a pre-training is: a frozen dataclass that checks itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..config import DataConfig
from ..errors import ConfigError
from ..losses import CROSS_ENTROPY
from ..models import BACKBONES
from ..settings.tables import merge, nest
from ..settings.typed import build
from ..tasks import loss_of

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Pretraining:
    """Classification of all training classes at once: SGD with Nesterov momentum on a cosine.

    Attributes:
        data: the images; its training split is learned, a share of every class is held out.
        backbone: one of `BACKBONES` for images.
        architecture: options of the backbone, by name.
        seed: of the weights, the order of the images and their crops.
        epochs: passes over the images.
        batch: images of a step.
        crop: height and width of what the network sees, in pixels; none: the images' own size.
        smallest_crop: share of an image's area that a random crop covers at least, in (0, 1]; 1: no crops.
        mirror: turn half of the images left to right.
        learning_rate: at the top of the cosine, after one epoch of linear warm-up.
        weight_decay: of every weight.
        label_smoothing: in [0, 1).
        precision: "float32", or "bfloat16" for the forward pass.
        held_out: share of every class's images that accuracy is measured on.

    Raises:
        ConfigError: naming the field, what was expected and what was given.
    """

    data: DataConfig
    backbone: str = "resnet18"
    architecture: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({"norm": "batch"}))
    seed: int = 0
    epochs: int = 20
    batch: int = 64
    crop: int | None = None
    smallest_crop: float = 0.4
    mirror: bool = True
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    precision: str = "float32"
    held_out: float = 0.05

    def __post_init__(self) -> None:
        images = [name for name, backbone in BACKBONES.items() if backbone.kind == "image"]
        checks = {
            "backbone": (self.backbone in images, f"one of {', '.join(images)}"),
            "seed": (self.seed >= 0, "at least 0"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 2, "at least 2"),
            "crop": (self.crop is None or self.crop >= 8, "at least 8 pixels, or none"),
            "smallest_crop": (0 < self.smallest_crop <= 1, "in (0, 1]"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "at least 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "held_out": (0 < self.held_out < 1, "in (0, 1)"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(f"{name} must be {expected}, got {getattr(self, name)!r}")
        if loss_of(self.data.name) is not CROSS_ENTROPY:
            raise ConfigError(f"data.name: pre-training classifies images, {self.data.name} has none")

    @classmethod
    def from_table(cls, table: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Pretraining:
        """Read a table, with {"epochs": 10, "architecture.norm": "group", ...} put over it."""
        return build(cls, merge(table, nest(overrides or {})))
