"""Backbones, plain torch modules written from the papers' tables, and the layer table of any module."""

from __future__ import annotations

from .conv4 import Conv4
from .ds_cnn import DSCNN
from .efficientnet import EfficientNet
from .mlp import MLP
from .mobilenet_v2 import MobileNetV2
from .mobilenet_v3 import MobileNetV3Small
from .motion_cnn import MotionCNN
from .registry import BACKBONES, Backbone, build_backbone
from .resnet import ResNet18, ResNet20
from .resnet12 import ResNet12
from .vit import ViT

__all__ = [
    "BACKBONES",
    "DSCNN",
    "MLP",
    "Backbone",
    "Conv4",
    "EfficientNet",
    "MobileNetV2",
    "MobileNetV3Small",
    "MotionCNN",
    "ResNet12",
    "ResNet18",
    "ResNet20",
    "ViT",
    "build_backbone",
]
