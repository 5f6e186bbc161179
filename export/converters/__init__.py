"""Rewrite trained torch modules so that they can be exported; every converter returns a copy and notes for people."""

from .attention import BatchFirstAttention, BatchFirstEncoderLayer, batch_first_attention
from .fold_batch_norm import ChannelAffine, fold_batch_norm
from .group_norm import to_group_norm

__all__ = [
    "BatchFirstAttention",
    "BatchFirstEncoderLayer",
    "ChannelAffine",
    "batch_first_attention",
    "fold_batch_norm",
    "to_group_norm",
]
