"""Modules and files that cannot become a bundle: one line that names the place and the way out, nothing written."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from edge_adapt.edge.program import program_from_json
from edge_adapt.export import ExportError, export_bundle
from onnx import numpy_helper, parser
from torch import nn


class Net(nn.Module):
    """A stem, a middle, a head; inputs are (N, 1, 3, 4)."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Linear(12, 12), middle or nn.Tanh(), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.middle(self.stem(x.flatten(1))))


class Branching(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class Looping(nn.Module):
    def forward(self, x):
        while x.norm() > 1:
            x = x / 2
        return x


class Picking(nn.Module):
    def forward(self, x):
        return x[:, : int(x.max().item())]


class Fourier(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x).abs().repeat(1, 2)[:, :12]


class Summing(nn.Module):
    def forward(self, x):
        return x.cumsum(1)


class Inverse(nn.Module):
    def forward(self, x):
        return torch.erfinv(x.tanh())


class Writing(nn.Module):
    def forward(self, x):
        y = x.relu()
        y[:, 0] += 1
        return y


class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Detached(nn.Module):
    def forward(self, x):
        return x.detach()


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x * self.count


class ThroughNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(np.tanh(x.detach().numpy()))


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(2, 12)


class MixedBatch(nn.Module):
    def forward(self, x):
        return x.reshape(-1, 4).relu().reshape(-1, 12)


class OverTheBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.cell(x.reshape(-1, 3, 4))[0].flatten(1)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        y = x.reshape(-1, 3, 4)
        return self.attention(y, y, y, attn_mask=torch.eye(3))[0].flatten(1)


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("my own\n\ncheck failed")


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 1)

    def forward(self, x):
        return self.table(x).flatten(1)


class WritingInput(Net):
    def forward(self, x):
        x[:, :, 0] += 1
        return super().forward(x)


class WithoutGradient(Net):
    def forward(self, x):
        with torch.no_grad():
            y = self.stem(x.flatten(1))
        return self.head(y)


class TwoOutputs(Net):
    def forward(self, x):
        y = self.stem(x.flatten(1))
        return self.head(y), y


class Packed(Net):
    def __init__(self, pack) -> None:
        super().__init__()
        self.pack = pack

    def forward(self, x):
        return self.pack(super().forward(x))


class TwoInputs(Net):
    def forward(self, x, y):
        return super().forward(x) + y


class NoOutput(Net):
    def forward(self, x):
        super().forward(x)


class Twice(Net):
    def forward(self, x):
        return self.head(self.stem(self.stem(x.flatten(1))))


class Constant(Net):
    def forward(self, x):
        return self.head.bias.expand(x.shape[0], 3)


class Parameterless(nn.Module):
    def forward(self, x):
        return x.flatten(1).relu()


class Holding(Net):
    def __init__(self) -> None:
        super().__init__()
        self.cache = self.stem.weight * 2


def tied() -> nn.Module:
    module = Net(nn.Linear(12, 12))
    module.middle.weight = module.stem.weight
    return module


def not_finite() -> nn.Module:
    module = Net()
    nn.init.constant_(module.stem.weight, torch.nan)
    return module


LINE = r" at test_refusals.py:\d+ "
MIDDLE = rf"^Net, module 'middle'{LINE}"
VALUES = r"it decides or computes sizes by the values of its data"
MODULES = {
    "branch-by-value": (Net(Branching()), rf"{MIDDLE}\(`if x.sum\(\) > 0:`\): {VALUES}"),
    "loop-by-value": (Net(Looping()), rf"{MIDDLE}\(`while x.norm\(\) > 1:`\): {VALUES}"),
    "size-by-value": (Net(Picking()), rf"{MIDDLE}\(`return x\[:, : int.*`\): {VALUES}"),
    "spectrum": (Net(Fourier()), r"node '.*' \(\w+\) of module 'middle'.*is not supported; compute spectra before"),
    "running-sum": (
        Net(Summing()),
        rf"\(CumSum\) of module 'middle'{LINE}\(`return x.cumsum\(1\)`\) is not supported; use a linear layer",
    ),
    "no-onnx-operator": (Net(Inverse()), rf"{MIDDLE}\(`return torch.erfinv.*`\): .*erf_?inv.* has no ONNX operator"),
    "write-into-a-view": (
        Net(Writing()),
        rf"\(Scatter\w+\) of module 'middle'{LINE}\(`y\[:, 0\] \+= 1`\) is not supported; it writes into a part",
    ),
    "write-into-the-input": (WritingInput(), r"\(Scatter\w+\).* is not supported; it writes into a part of a tensor"),
    "random-numbers": (Net(Noisy()), r"\(RandomNormalLike\) of module 'middle'.*is not supported; random numbers"),
    "stopped-gradient": (Net(Detached()), rf"{MIDDLE}\(`return x.detach\(\)`\): it stops gradients"),
    "no-gradient": (WithoutGradient(), r"^WithoutGradient.*: it stops gradients \(detach, .data or no_grad\)"),
    "changing-buffer": (
        Net(Counting()), rf"{MIDDLE}\(`self.count \+= 1`\): it changes its buffer 'middle.count'"),
    "through-numpy": (Net(ThroughNumpy()), rf"{MIDDLE}.*: it leaves torch for numpy"),
    "fixed-batch": (Net(FixedBatch()), r"^Net: it works for one batch size only; write x.shape\[0\]"),
    "mixed-batch": (
        Net(MixedBatch()), rf"of module 'middle'{LINE}.*: it merges the batch axis with another or moves it; keep"),
    "over-the-batch": (Net(OverTheBatch()), r"\((ReduceMean|Sub)\) of module 'middle'.*batch"),
    "recurrent": (Net(Recurrent()), r"\(\w+\) of module 'middle.cell'.*recurrent layers are not supported; use 1-D"),
    "attention-mask": (
        Net(Masked()), r"^module 'middle.attention' \(MultiheadAttention\): masks are not supported"),
    "own-error": (
        Net(Failing()), rf"{MIDDLE}\(`raise .*`\): torch cannot export .* \(RuntimeError: my own check failed\)"),
    "embedding": (Net(Embedded()), rf"^Net, module 'middle.table'{LINE}.*: it looks up integers"),
    "two-outputs": (TwoOutputs(), r"^TwoOutputs: it returns 2 values; wrap it in a module that returns one tensor"),
    "dict-output": (Packed(lambda y: {"logits": y}), r"^Packed: it returns a dict; wrap it in a module that returns"),
    "tuple-output": (Packed(lambda y: (y,)), r"^Packed: it returns a tuple; wrap it in a module that returns"),
    "two-inputs": (TwoInputs(), r"^TwoInputs: it takes more than one input; wrap it"),
    "no-output": (NoOutput(), r"^NoOutput: it returns nothing; wrap it"),
    "layer-used-twice": (Twice(), r"parameter 'stem.weight' is used more than once \(by 'stem' and 'stem'\)"),
    "tied-parameters": (tied(), r"^Net: parameters 'stem.weight' and 'middle.weight' are one tensor"),
    "complex-parameters": (Net(nn.Linear(12, 12, dtype=torch.complex64)), r"'middle.weight' is torch.complex64"),
    "lazy-parameters": (Net(nn.LazyLinear(12)), r"^Net: parameter 'middle.weight' is not initialised; run"),
    "input-not-used": (Constant(), r"^Constant: its output does not depend on its input"),
    "no-parameters": (Parameterless(), r"^Parameterless: the module has no parameters; export one that computes"),
    "not-to-be-copied": (Holding(), r"^Holding: the module cannot be copied"),
    "wrong-sizes": (Net(nn.Linear(7, 12)), r"^Net, module 'middle'.*: sizes do not fit; give an example"),
    "not-finite": (not_finite(), r"'stem.weight' has values that are not finite"),
    "no-logits": (nn.Conv2d(1, 3, 2), r"output .*\(3, 2, 3\); expected"),
    "live-statistics": (
        nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(12, 3)),
        r"^module '0' \(BatchNorm2d\): it has no running statistics"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_cannot_be_exported_says_where_and_what_to_do(name, tmp_path, capfd):
    module, message = MODULES[name]
    with pytest.raises(ExportError, match=message) as caught:
        export_bundle(module, tmp_path / "bundle", example_input=torch.zeros(2, 1, 3, 4))
    check_refusal(str(caught.value), tmp_path, capfd)


def check_refusal(text: str, path, capfd) -> None:
    assert len(text.splitlines()) == 1
    assert len(text) < 450
    assert capfd.readouterr() == ("", "")
    assert not [entry for entry in path.iterdir() if entry.suffix != ".onnx"]


def test_dropout_in_training_mode_disappears(tmp_path):
    module = Net(nn.Dropout(0.5)).train()
    export_bundle(module, tmp_path / "bundle", example_input=torch.zeros(2, 1, 3, 4))
    program = program_from_json(json.loads((tmp_path / "bundle" / "program.json").read_text()))
    assert [op.kind for op in program.ops(("forward",))] == ["Reshape", "Fc", "Fc"]
    assert module.training


def test_a_layer_with_two_names_that_runs_once_is_no_sharing(tmp_path):
    module = Net(nn.Linear(12, 12))
    module.listed = nn.ModuleList([module.head, module.stem])
    bundle = export_bundle(module, tmp_path / "bundle", example_input=torch.zeros(2, 1, 3, 4))
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert [layer["name"] for layer in manifest["layers"]] == ["stem", "middle", "head"]


def test_integer_examples_are_refused(tmp_path):
    with pytest.raises(ExportError, match=r"example_input: expected real numbers .* got int64"):
        export_bundle(Net(), tmp_path / "bundle", example_input=torch.zeros(2, 12, dtype=torch.int64))
    assert not list(tmp_path.iterdir())


def written(path, body: str, **weights) -> None:
    text = f'<ir_version: 8, opset_import: ["" : 18]> g (float[N, 1, 3, 4] x) => (float out) {{ {body} }}'
    model = parser.parse_model(text)
    for name, shape in weights.items():
        value = np.full(shape, 0.1, np.float32) if isinstance(shape, tuple) else shape
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.save(model, path)


HEAD = "f = Flatten (x) out = Gemm <transB = 1> (f, w, b)"
FILES = {
    "text": (lambda path: path.write_text("no model"), r"model.onnx: not an ONNX file"),
    "directory": (lambda path: path.mkdir(), r"model.onnx: is a directory"),
    "unsupported": (lambda path: written(path, f"m = Mish (x) {HEAD}".replace("Flatten (x)", "Flatten (m)"),
                                         w=(3, 12), b=(3,)), r"node 'm' \(Mish\) is not supported; use one of the"),
    "no-parameters": (lambda path: written(path, "f = Flatten (x) out = Relu (f)"), r"no parameters that a layer"),
    "not-finite": (lambda path: written(path, HEAD, w=np.full((3, 12), np.inf, np.float32), b=(3,)),
                   r"'w' has values that are not finite"),
    "weight-used-twice": (lambda path: written(path, "f = Flatten (x) a = MatMul (f, w) out = MatMul (a, w)",
                                               w=(12, 12)), r"parameter 'w' is used more than once"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_exported_says_where_and_what_to_do(name, tmp_path, capfd):
    make, message = FILES[name]
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ExportError, match=message) as caught:
        export_bundle(path, tmp_path / "bundle")
    check_refusal(str(caught.value), tmp_path, capfd)
