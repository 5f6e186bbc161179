"""Rewritten attention computes what torch's modules compute."""

from __future__ import annotations

import pytest
import torch
from edge_adapt.export import ExportError
from edge_adapt.export.converters import BatchFirstAttention, batch_first_attention
from torch import nn
from torch.nn import functional as F


class Attending(nn.Module):
    """Self-attention, then attention to another sequence of other width."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(8, 2, batch_first=True, **options)
        self.other = nn.MultiheadAttention(8, 4, kdim=3, vdim=5, batch_first=True, **options)

    def forward(self, x):
        y, weights = self.own(x, x, x)
        z, per_head = self.other(y, x[:, :4, :3], x[:, :4, 3:], average_attn_weights=False)
        return torch.cat([y.flatten(1), z.flatten(1), weights.flatten(1), per_head.flatten(1)], 1)


def encoder_layer(**options) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)


MODULES = {
    "attention": lambda: Attending(dropout=0.3),
    "attention-without-bias": lambda: Attending(bias=False),
    "layer": encoder_layer,
    "layer-norm-first-gelu": lambda: encoder_layer(norm_first=True, activation="gelu"),
    "layer-own-activation": lambda: encoder_layer(activation=F.silu, bias=False),
    "encoder": lambda: nn.TransformerEncoder(encoder_layer(), 2, nn.LayerNorm(8), enable_nested_tensor=False),
    "encoder-of-nested-tensors": lambda: nn.TransformerEncoder(encoder_layer(), 2),
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_outputs_are_those_of_torch(name, grad):
    torch.manual_seed(0)
    module = MODULES[name]().double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    converted, notes = batch_first_attention(module)
    with torch.set_grad_enabled(grad):
        assert torch.allclose(converted(x), module(x), rtol=1e-12, atol=1e-12)
    assert not any(isinstance(part, nn.MultiheadAttention) for part in converted.modules())
    assert len(notes) == (2 if name.startswith(("attention", "encoder")) else 1)


def test_gradients_of_the_split_weights_are_those_of_the_joint_one():
    torch.manual_seed(0)
    module = nn.MultiheadAttention(8, 2, batch_first=True).double()
    converted, _ = batch_first_attention(module)
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    for attention in (module, converted):
        attention(x, x, x, need_weights=False)[0].square().sum().backward()
    split = torch.cat([converted.query.weight.grad, converted.key.weight.grad, converted.value.weight.grad])
    assert torch.allclose(split, module.in_proj_weight.grad, rtol=1e-10, atol=1e-12)
    assert torch.allclose(converted.out.bias.grad, module.out_proj.bias.grad, rtol=1e-10)


def test_the_module_is_left_alone_and_notes_name_the_layers():
    module = nn.Sequential(encoder_layer()).train()
    converted, notes = batch_first_attention(module)
    assert notes == ("0 (TransformerEncoderLayer): batch-first attention with layers query, key, value, out",)
    assert isinstance(module[0].self_attn, nn.MultiheadAttention)
    assert module[0].self_attn.training
    assert isinstance(converted[0].self_attn, BatchFirstAttention)
    assert "0.self_attn.query.weight" in dict(converted.named_parameters())
    assert not any(part.training for part in converted.modules())


REFUSED = {
    "second-axis-batch": (nn.MultiheadAttention(8, 2), "build it with batch_first=True"),
    "key-bias": (nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True), "add_bias_kv"),
    "zero-key": (nn.MultiheadAttention(8, 2, add_zero_attn=True, batch_first=True), "add_zero_attn"),
    "layer-second-axis-batch": (nn.TransformerEncoderLayer(8, 2, 16), "build it with batch_first=True"),
    "decoder": (nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), "decoders attend under a mask"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_equivalent_is_refused_by_name(name):
    part, message = REFUSED[name]
    with pytest.raises(ExportError, match=rf"^module 'body.part' \(\w+\): .*{message}"):
        batch_first_attention(nn.ModuleDict({"body": nn.ModuleDict({"part": part})}))


def test_masks_are_refused_when_the_copy_runs():
    x = torch.randn(2, 5, 8)
    attention, _ = batch_first_attention(nn.Sequential(nn.MultiheadAttention(8, 2, batch_first=True)))
    layer, _ = batch_first_attention(nn.Sequential(encoder_layer()))
    padding = torch.zeros(2, 5, dtype=torch.bool)
    for run in (
        lambda: attention[0](x, x, x, attn_mask=torch.zeros(5, 5)),
        lambda: attention[0](x, x, x, is_causal=True),
        lambda: layer[0](x, src_key_padding_mask=padding),
    ):
        with pytest.raises(
            ExportError, match=r"^module '0.*' \(MultiheadAttention\): masks are not supported"
        ):
            run()
    with pytest.raises(ExportError, match=r"expected \(N, T, E\), got 2 axes"):
        attention[0](x[0], x[0], x[0])
