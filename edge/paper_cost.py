"""The analytic memory model behind the published tables (p-Meta, tables 1 and 2; 1 MB = 1e6 bytes).

It keeps conv inputs and normalised maps both, where this project's engine recomputes one from the other; see
`cost.peak_dynamic_bytes` for ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cost import WORD_BYTES, Table


@dataclass(frozen=True)
class Block:
    """Layers up to one max-pool, sizes in words per sample.

    Attributes:
        stored_words: all conv inputs and all normalised inputs of the block.
        map_words: E, one feature map before pooling.
        activations: ReLUs of E words each.
        pooled_words: the map after pooling.
        working_maps: maps live beside what is stored, 1 for a chain, 2 for a main path with a shortcut.
    """

    stored_words: int
    map_words: int
    activations: int
    pooled_words: int
    working_maps: int = 1

    @property
    def mask_words(self) -> float:
        """One bit per activation, two per pooled element."""
        return self.activations * self.map_words / 32 + self.pooled_words / 16


def chain_blocks(table: Table) -> tuple[Block, ...]:
    """Blocks of a net without shortcuts (4Conv): a block ends with the layer that is followed by a pool."""
    blocks: list[Block] = []
    stored, activations = 0, 0
    for layer in table:
        if layer.kind == "fc":
            continue
        stored += layer.input_words
        activations += layer.relu_words > 0
        if layer.pooled_words:
            blocks.append(Block(stored, layer.output_words, activations, layer.pooled_words))
            stored, activations = 0, 0
    return tuple(blocks)


def activation_words(blocks: Sequence[Block]) -> float:
    """max over blocks b of [ sum_{i<=b} (stored_i + masks_i) + t * E_b ]."""
    peak, kept = 0.0, 0.0
    for block in blocks:
        kept += block.stored_words + block.mask_words
        peak = max(peak, kept + block.working_maps * block.map_words)
    return peak


def training_peak_bytes(blocks: Sequence[Block], accumulator_words: int) -> float:
    """Batch 1 with accumulated gradients (MAML: all weights, BOIL: all but the last layer's)."""
    return WORD_BYTES * (activation_words(blocks) + accumulator_words)


def batch_peak_bytes(blocks: Sequence[Block], samples: int = 25) -> float:
    """All samples at once, without accumulators (table 1)."""
    return WORD_BYTES * samples * activation_words(blocks)


def head_peak_bytes(blocks: Sequence[Block], head_words: int) -> float:
    """ANIL: nothing stored below the head; inference's peak plus the head's accumulator."""
    return WORD_BYTES * (blocks[0].working_maps * blocks[0].map_words + head_words)
