"""Bundles of modules that have to be rewritten first predict what the modules predict."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest
import torch
from edge_adapt.export import export_bundle
from torch import nn


class Transformer(nn.Module):
    """A class token, positions and torch's own encoder."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 5)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 9, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(16), enable_nested_tensor=False)

    def forward(self, x):
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.position
        return self.head(self.encoder(y)[:, 0])


def convolutional() -> nn.Module:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4),
    )  # fmt: skip
    for name, values in (*module.named_parameters(), *module.named_buffers()):
        if values.ndim == 1:
            nn.init.uniform_(values, *((0.5, 2) if "var" in name else (-1, 1)))
    return module.eval()


def check_predictions(module: nn.Module, expected: nn.Module, x: torch.Tensor, path, **options) -> dict:
    bundle = export_bundle(module, path / "bundle", example_input=x, **options)
    session = onnxruntime.InferenceSession(str(bundle / "eval.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, expected(x).numpy(), rtol=1e-4, atol=1e-5)
    return json.loads((bundle / "manifest.json").read_text())


def test_torchs_transformer_encoder(tmp_path):
    torch.manual_seed(0)
    module = Transformer(norm_first=True, activation="gelu").eval()
    manifest = check_predictions(module, module, torch.randn(3, 8, 6), tmp_path)
    kinds = {layer["name"]: layer["kind"] for layer in manifest["layers"]}
    assert {kinds[f"encoder.layers.0.self_attn.{part}"] for part in ("query", "key", "value", "out")} == {
        "fc"
    }
    assert kinds["token"] == kinds["position"] == "affine"


@pytest.mark.parametrize(
    ("batch_norm", "affine"), [("affine", ["1", "4", "9"]), ("conv", ["9"])], ids=["affine", "conv"]
)
def test_batch_norm_becomes_a_fixed_affine_map(batch_norm, affine, tmp_path):
    torch.manual_seed(0)
    module = convolutional()
    manifest = check_predictions(module, module, torch.randn(3, 3, 8, 8), tmp_path, batch_norm=batch_norm)
    assert [layer["name"] for layer in manifest["layers"] if layer["kind"] == "affine"] == affine
    assert len(manifest["provenance"]["notes"]) == 3
