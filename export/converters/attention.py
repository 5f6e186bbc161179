"""torch's attention modules, rewritten batch first with one linear layer each for queries, keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExportError
from .replace import replaced

_UNSUPPORTED = (nn.Transformer, nn.TransformerDecoder, nn.TransformerDecoderLayer)


class BatchFirstAttention(nn.Module):
    """What `nn.MultiheadAttention(batch_first=True)` computes without masks or dropout (Vaswani et al. 2017, sec. 3.2).

    Layers query, key, value and out are linear on (N, T, E); scores and their softmax are (N, heads, T, T').
    `forward` takes the arguments of nn.MultiheadAttention, so that the modules around it need no change.
    """

    batch_first = True
    in_proj_bias = None

    def __init__(self, path: str, source: Any) -> None:
        super().__init__()
        self.path, self.heads = path, source.num_heads
        weights = _rows(source.in_proj_weight) if source._qkv_same_embed_dim else (
            source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)  # fmt: skip
        biases = (None, None, None) if source.in_proj_bias is None else _rows(source.in_proj_bias)
        self.query, self.key, self.value = map(_linear, weights, biases)
        self.out = _linear(source.out_proj.weight, source.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(N, T, E), (N, T', K), (N, T', V) to (N, T, E) and, if needed, the softmax of the scores."""
        if key_padding_mask is not None or attn_mask is not None or is_causal:
            raise ExportError(
                f"module {self.path!r} (MultiheadAttention): masks are not supported; remove the mask"
            )
        if query.dim() != 3:
            raise ExportError(
                f"module {self.path!r} (MultiheadAttention): expected (N, T, E), got {query.dim()} axes"
            )
        q, k, v = (self._split(x) for x in (self.query(query), self.key(key), self.value(value)))
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, -1)
        y = self.out((weights @ v).transpose(1, 2).flatten(2))
        if not need_weights:
            return y, None
        return y, weights.mean(1) if average_attn_weights else weights

    def _split(self, x: Tensor) -> Tensor:
        """(N, T, E) to (N, heads, T, E / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class BatchFirstEncoderLayer(nn.Module):
    """What `nn.TransformerEncoderLayer(batch_first=True)` computes in evaluation mode, without torch's fused path."""

    def __init__(self, path: str, source: Any) -> None:
        super().__init__()
        self.path, self.norm_first, self.activation = path, source.norm_first, source.activation
        self.self_attn = BatchFirstAttention(f"{path}.self_attn", source.self_attn)
        self.linear1, self.linear2 = source.linear1, source.linear2
        self.norm1, self.norm2 = source.norm1, source.norm2

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """(N, T, E) to (N, T, E)."""
        masks = {"key_padding_mask": src_key_padding_mask, "attn_mask": src_mask}
        if self.norm_first:
            x = src + self._attend(self.norm1(src), masks, is_causal)
            return x + self._transform(self.norm2(x))
        x = self.norm1(src + self._attend(src, masks, is_causal))
        y: Tensor = self.norm2(x + self._transform(x))
        return y

    def _attend(self, x: Tensor, masks: dict[str, Tensor | None], is_causal: bool) -> Tensor:
        y: Tensor = self.self_attn(x, x, x, need_weights=False, is_causal=is_causal, **masks)[0]
        return y

    def _transform(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear2(self.activation(self.linear1(x)))
        return y


def batch_first_attention(module: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Replace nn.MultiheadAttention and nn.TransformerEncoderLayer by modules of supported operations.

    Outputs are equal; `in_proj_weight` (3 E, E) becomes the weights of three layers query, key and value.
    Attention between two sequences (key and value unlike the query, kdim, vdim) works too.

    Args:
        module: it is not changed. Subclasses with a forward of their own are left alone.

    Returns:
        A copy in evaluation mode, and one line for people per replaced module.

    Raises:
        ExportError: batch_first=False, bias_k, add_zero_attn, a decoder, named; masks when the copy is run.
    """
    notes: list[str] = []

    def substitute(path: str, part: nn.Module) -> nn.Module | None:
        if isinstance(part, _UNSUPPORTED):
            raise ExportError(
                f"module {path!r} ({type(part).__name__}): decoders attend under a mask; use nn.TransformerEncoderLayer"
            )
        made = _substitute(path, part)
        if made is not None:
            notes.append(
                f"{path} ({type(part).__name__}): batch-first attention with layers query, key, value, out"
            )
        return made

    return replaced(module, substitute)[0], tuple(notes)


def _substitute(path: str, part: Any) -> nn.Module | None:
    if type(part) is nn.MultiheadAttention:
        _check(path, part)
        return BatchFirstAttention(path, part)
    if type(part) is nn.TransformerEncoderLayer:
        _check(path, part.self_attn)
        return BatchFirstEncoderLayer(path, part)
    return None


def _check(path: str, attention: Any) -> None:
    if not attention.batch_first:
        raise ExportError(f"module {path!r} (MultiheadAttention): its batch axis is the second one; build it with "
                          "batch_first=True and give it (N, T, E)")  # fmt: skip
    if attention.bias_k is not None or attention.add_zero_attn:
        raise ExportError(f"module {path!r} (MultiheadAttention): add_bias_kv and add_zero_attn are not supported; "
                          "build it without them")  # fmt: skip


def _rows(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, third = value.detach().chunk(3)
    return query, key, third


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made
