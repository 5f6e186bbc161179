"""Bytes and multiply-accumulates of adaptation, layer by layer: one definition for training and device.

A *word* is 4 bytes. Sizes are per sample (batch 1) unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WORD_BYTES = 4
Kind = Literal["conv", "fc", "norm"]


@dataclass(frozen=True)
class Layer:
    """One conv, fc or GroupNorm layer with its geometry; weight and bias count together.

    Attributes:
        name: module name, e.g. `conv1`.
        weight_words: m(w), weight and bias.
        input_words: m(x), the layer's input for one sample (norm layers: the normalised input).
        output_words: the layer's output for one sample.
        macs_per_output: multiply-accumulates per output element (C_in/groups * kh * kw; fc: inputs; norm: 1).
        groups: convolution groups, or a norm's groups; 1 for fc.
        relu_words: elements of the ReLU that follows (0: none); its backward needs 1 bit each.
        pooled_words: outputs of the max-pool that follows (0: none); its 2x2 backward needs 2 bits each.
        is_output: the classifier's last layer, which meta attention leaves alone.
    """

    name: str
    kind: Kind
    weight_words: int
    input_words: int
    output_words: int
    channels_in: int
    channels_out: int
    groups: int
    macs_per_output: int
    relu_words: int = 0
    pooled_words: int = 0
    is_output: bool = False

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the forward pass for one sample."""
        return self.output_words * self.macs_per_output

    @property
    def mask_bytes(self) -> int:
        """Bit masks that the backward pass needs of what follows: ReLU 1 bit, 2x2 max-pool 2 bits."""
        return -(-self.relu_words // 8) + -(-self.pooled_words // 4)


Table = Sequence[Layer]
