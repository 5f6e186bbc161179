"""Modules with layers of every family and rank: signals (N, C, L), tokens (N, T, C), norms with and without affine."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

SIGNAL, TOKENS, IMAGE = (3, 11), (5, 4), (2, 5, 4)


def signal(middle: nn.Module, features: int) -> nn.Module:
    """The layer on (N, 6, 11), between a 1-d convolution and a head."""
    parts = {"stem": nn.Conv1d(3, 6, 3, padding=1), "middle": middle}
    return nn.Sequential(OrderedDict(**parts, flat=nn.Flatten(), head=nn.Linear(features, 3)))


def tokens(middle: nn.Module, features: int) -> nn.Module:
    """The layer on (N, 5, 6), between a linear layer of tokens and a head."""
    parts = {"stem": nn.Linear(4, 6), "middle": middle}
    return nn.Sequential(OrderedDict(**parts, flat=nn.Flatten(), head=nn.Linear(features, 3)))


def image(middle: nn.Module, features: int) -> nn.Module:
    """The layer on (N, 6, 5, 4), between a convolution and a head."""
    parts = {"stem": nn.Conv2d(2, 6, 3, padding=1), "middle": middle}
    return nn.Sequential(OrderedDict(**parts, flat=nn.Flatten(), head=nn.Linear(features, 3)))


def uncentred(norm: nn.Module) -> nn.Module:
    """A norm of single maps behind a ReLU: gradients through such a norm sum to 0 over each map, and attention on
    the layer before it would see rounding errors only.
    """
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), norm=norm))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d-padded": (lambda: signal(nn.Conv1d(6, 4, 3, padding=1), 4 * 11), SIGNAL),
    "conv1d-strided-leftover": (lambda: signal(nn.Conv1d(6, 4, 4, stride=3, padding=1), 4 * 4), SIGNAL),
    "conv1d-dilated-groups": (
        lambda: signal(nn.Conv1d(6, 9, 3, dilation=3, stride=2, groups=3, bias=False), 9 * 3), SIGNAL),
    "conv1d-depthwise": (lambda: signal(nn.Conv1d(6, 6, 5, padding=2, groups=6), 6 * 11), SIGNAL),
    "conv1d-pointwise": (lambda: signal(nn.Conv1d(6, 4, 1), 4 * 11), SIGNAL),
    "conv-same": (lambda: image(nn.Conv2d(6, 3, 3, padding="same", dilation=(1, 2)), 3 * 20), IMAGE),
    "conv-asymmetric-depthwise": (
        lambda: image(nn.Conv2d(6, 6, (3, 1), (2, 1), (1, 0), groups=6), 6 * 12), IMAGE),
    "fc-of-tokens": (lambda: tokens(nn.Linear(6, 4), 20), TOKENS),
    "fc-of-tokens-no-bias": (lambda: tokens(nn.Linear(6, 4, bias=False), 20), TOKENS),
    "fc-of-planes": (lambda: image(nn.Linear(4, 3), 6 * 15), IMAGE),
    "layer-norm": (lambda: tokens(nn.LayerNorm(6), 30), TOKENS),
    "layer-norm-no-bias": (lambda: tokens(nn.LayerNorm(6, bias=False), 30), TOKENS),
    "layer-norm-no-affine": (lambda: tokens(nn.LayerNorm(6, elementwise_affine=False), 30), TOKENS),
    "layer-norm-of-vectors": (
        lambda: nn.Sequential(OrderedDict(fc=nn.Linear(4, 8), norm=nn.LayerNorm(8, 1e-3), head=nn.Linear(8, 3))),
        (4,)),
    "layer-norm-of-maps": (lambda: image(nn.LayerNorm((6, 5, 4)), 120), IMAGE),
    "layer-norm-of-planes": (lambda: image(uncentred(nn.LayerNorm((5, 4))), 120), IMAGE),
    "group-norm-of-signals": (lambda: signal(nn.GroupNorm(2, 6), 66), SIGNAL),
    "group-norm-no-affine": (lambda: image(nn.GroupNorm(3, 6, affine=False), 120), IMAGE),
    "instance-norm": (lambda: image(uncentred(nn.InstanceNorm2d(6, affine=True)), 120), IMAGE),
    "instance-norm-of-signals": (lambda: signal(uncentred(nn.InstanceNorm1d(6, affine=True, eps=1e-2)), 66), SIGNAL),
    "instance-norm-no-affine": (lambda: image(uncentred(nn.InstanceNorm2d(6)), 120), IMAGE),
}  # fmt: skip
