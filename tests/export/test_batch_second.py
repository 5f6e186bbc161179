"""ONNX files with torch's own attention, which computes with the batch second and folded into the heads."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.verify import verify
from edge_adapt.export import export_bundle
from torch import Tensor, nn

TOKENS, FEATURES, WIDTH, HEADS, SAMPLES = 5, 6, 16, 2, 4


class OneLayer(nn.Module):
    """Attention of its own, with a residual and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head(self.norm(x + mixed).mean(1))


class Encoder(nn.Module):
    """torch's own transformer layers, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, WIDTH)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, 0.0, "gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.layers(torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1))[:, 0])


def trained(kind: type[nn.Module]) -> nn.Module:
    """A network whose parameters all differ, as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = kind().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter, 0.0, 0.3)
    return module


def written(module: nn.Module, path: Path, opset: int, dynamo: bool) -> Path:
    buffer, example = io.BytesIO(), torch.zeros(2, TOKENS, FEATURES)
    batch = (
        {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        if dynamo
        else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,
            dynamo=dynamo,
            opset_version=opset,
            input_names=["x"],
            verbose=False,
            **batch,
        )
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize("kind", [OneLayer, Encoder])
@pytest.mark.parametrize(("opset", "dynamo"), [(14, False), (17, False), (18, True)])
def test_the_bundle_of_a_file_with_attention_is_that_of_its_module(kind, opset, dynamo, tmp_path, capfd):
    module = trained(kind)
    file = written(module, tmp_path / "model.onnx", opset, dynamo)
    capfd.readouterr()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SAMPLES, TOKENS, FEATURES)).astype(np.float32), np.arange(SAMPLES) % 3
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})

    export_bundle(file, tmp_path / "b", step_size=0.0123, steps=3, samples=SAMPLES)
    bundle = Bundle.open(tmp_path / "b")
    assert verify(bundle.files, ReferenceEngine())["passed"]
    own = onnxruntime.InferenceSession(str(tmp_path / "b" / "eval.onnx"), providers=["CPUExecutionProvider"])
    (logits,) = own.run(["logits"], {"images": x})
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)

    adapted = bundle.adapt(x, y, plan=bundle.plan(samples=SAMPLES)).logits(x)
    loss = nn.CrossEntropyLoss()
    module = module.double()
    for _ in range(3):
        grads = torch.autograd.grad(
            loss(module(torch.from_numpy(x).double()), torch.from_numpy(y)), list(module.parameters())
        )
        with torch.no_grad():
            for parameter, grad in zip(module.parameters(), grads, strict=True):
                parameter -= 0.0123 * grad
    after = module(torch.from_numpy(x).double()).detach().numpy()
    assert np.abs(after - expected).max() > 1e-2
    np.testing.assert_allclose(adapted, after, rtol=1e-4, atol=1e-4)
