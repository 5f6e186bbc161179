"""Signals and tokens in a planned arena: K steps as in torch, sparse storage where channels come first only."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from edge_adapt.edge import Bundle
from edge_adapt.edge.engines import ReferenceEngine
from edge_adapt.edge.lower import Choice, lower
from edge_adapt.edge.plan import search_plan
from edge_adapt.edge.verify import verify
from edge_adapt.export import ArraySpec, export_bundle
from edge_adapt.export.bundle import write_bundle
from edge_adapt.export.source import AttentionSettings, Source
from torch import nn
from torch.nn import functional as F

from .cases import stack
from .truth import random_attention

SIGNAL, STEP_SIZE, STEPS = (3, 16), 0.05, 3


class Signals(nn.Module):
    """1-d convolutions, a class token, positions, a residual block of tokens with a layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.depthwise = nn.Conv1d(3, 8, 3, 2, 1), nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.instance, self.layer = nn.InstanceNorm1d(8, affine=True), nn.LayerNorm(8)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 9, 8))
        self.up, self.down, self.scale = nn.Linear(8, 16), nn.Linear(16, 8), nn.Parameter(torch.rand(8))
        self.head = nn.Linear(72, 4)

    def forward(self, x):
        x = torch.relu(self.instance(self.depthwise(self.conv(x)))).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.scale * self.down(torch.relu(self.up(self.layer(x))))
        return self.head(x.flatten(1))


def support() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).normal(size=(6, *SIGNAL)).astype(np.float32), np.arange(6) % 4


def adapted_by_torch(module: nn.Module, layers: tuple[str, ...] | None = None) -> np.ndarray:
    """Logits after plain gradient steps of the named parameters, in float64."""
    module, (x, y) = copy.deepcopy(module).double(), support()
    chosen = [p for n, p in module.named_parameters() if layers is None or n.partition(".")[0] in layers]
    for _ in range(STEPS):
        loss = F.cross_entropy(module(torch.from_numpy(x).double()), torch.from_numpy(y))
        with torch.no_grad():
            for parameter, grad in zip(chosen, torch.autograd.grad(loss, chosen), strict=True):
                parameter -= STEP_SIZE * grad
    return module(torch.from_numpy(x).double()).detach().numpy()


@pytest.mark.parametrize("layers", [None, ("token", "layer", "head"), ("depthwise", "position")], ids=str)
def test_signals_and_tokens_adapt_as_in_torch(layers, tmp_path):
    torch.manual_seed(0)
    module = Signals()
    export_bundle(
        module, tmp_path / "b", example_input=torch.zeros(1, *SIGNAL), step_size=STEP_SIZE, steps=STEPS,
        layers=layers, samples=6,
    )  # fmt: skip
    bundle = Bundle.open(tmp_path / "b")
    report = verify(bundle.files, ReferenceEngine())
    assert report["passed"], [check for check in report["checks"] if not check["passed"]]
    macs = {layer.name: layer.macs for layer in bundle.files.manifest.layers}
    assert macs["conv"] == 8 * 8 * 3 * 3  # outputs, places, inputs, taps
    assert macs["depthwise"] == 8 * 8 * 3
    assert macs["up"] == macs["down"] == 9 * 8 * 16
    assert macs["token"] == macs["position"] == 0
    assert macs["layer"] == macs["scale"] == 9 * 8
    expected, (x, y) = adapted_by_torch(module, layers), support()
    smallest = bundle.plan(samples=6).dynamic_bytes // 2
    for budget in (None, smallest):
        plan = bundle.plan(samples=6, dynamic_budget=budget)
        logits = bundle.adapt(x, y, plan=plan).logits(x)
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    assert plan.micro_batch < 6
    by_onnx = bundle.adapt(x, y, engine="onnxruntime").logits(x)
    np.testing.assert_allclose(by_onnx, expected, atol=1e-5 * np.abs(expected).max())


def attended_bundle(path) -> Bundle:
    """A signal convolution and a token layer, both with attention."""
    torch.manual_seed(1)
    module = stack(
        conv=nn.Conv1d(3, 8, 3, padding=1), relu=nn.ReLU(), again=nn.Conv1d(8, 8, 3, padding=1), up=nn.Linear(16, 32),
        act=nn.ReLU(), down=nn.Linear(32, 6), flat=nn.Flatten(), head=nn.Linear(48, 4),
    )  # fmt: skip
    layers, attention = ("conv", "again", "up", "down", "head"), random_attention(module, 3)
    alpha = np.full((STEPS, len(layers)), STEP_SIZE, np.float32)
    spec = ArraySpec(SIGNAL)
    write_bundle(
        Source("attended", module, spec, layers, alpha, attention, AttentionSettings(0.5, 0.3)), path
    )
    return Bundle.open(path)


def test_tokens_stay_dense_where_signals_are_stored_sparsely(tmp_path):
    bundle = attended_bundle(tmp_path / "b")
    program = bundle.files.program
    everything = ((True,) * len(program.layers),) * STEPS
    lowered = lower(program, everything, 6, Choice(6, storage="sparse")).programs[0]
    kinds = {step.layer: step.kind for step in lowered.steps if step.kind.startswith(("ConvW", "FcW"))}
    assert kinds["again"] == "ConvWeightGradSparse"
    assert kinds["up"] == kinds["down"] == "FcWeightGrad"


def test_sparse_and_dense_storage_adapt_alike(tmp_path):
    bundle, (x, y) = attended_bundle(tmp_path / "b"), support()
    logits = {}
    for storage in ("dense", "sparse"):
        plan = search_plan(
            bundle.files.program, bundle.files.weights.copy("alpha"), 6, STEPS, sample_bytes=x[0].nbytes,
            storage=storage,
        )  # fmt: skip
        assert plan.storage == storage
        logits[storage] = bundle.adapt(x, y, plan=plan).logits(x)
    np.testing.assert_allclose(logits["sparse"], logits["dense"], atol=1e-5 * np.abs(logits["dense"]).max())
