"""What capture recognises, and how it refuses what it cannot express."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from edge_adapt.edge.inputs import InputSpec
from edge_adapt.edge.program import program_from_json, program_to_json
from edge_adapt.export import ExportError, export_bundle
from edge_adapt.export.adaptation import adaptation
from edge_adapt.export.capture import capture, to_onnx
from edge_adapt.export.onnx_import import import_forward
from edge_adapt.export.source import AttentionSettings, Source
from torch import nn

from .cases import Residual, stack
from .conv4 import conv4_source
from .truth import random_attention


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = stack(conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.GroupNorm(2, 4), drop=nn.Dropout(0.5))
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        return self.head(torch.relu(self.block(x)).flatten(1))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(75, 3)

    def forward(self, x):
        return self.head(self.conv(self.conv(x)).flatten(1))


class Reshaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Linear(27, 4)
        self.head = nn.Linear(36, 3)

    def forward(self, x):
        return self.head(
            nn.functional.conv2d(x, self.flat.weight.reshape(4, 3, 3, 3), self.flat.bias).flatten(1)
        )


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(75, 3)

    def forward(self, x):
        return self.head(x.flatten(1)) if x.sum() > 0 else self.head(-x.flatten(1))


class Loose(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(75, 3)

    def forward(self, x):
        return self.head((x * self.scale).flatten(1))


class Transposing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(15, 3)

    def forward(self, x):
        return self.head(x.reshape(x.shape[0] * 5, 15))


def headed(*parts: nn.Module, features: int) -> nn.Module:
    body = {f"part{index}": part for index, part in enumerate(parts)}
    return stack(**body, flatten=nn.Flatten(), head=nn.Linear(features, 3))


def after_conv(part: nn.Module) -> nn.Module:
    return headed(nn.Conv2d(3, 4, 3), part, features=36)


HOSTILE = {
    "dilated-pool": (headed(nn.MaxPool2d(2, 1, dilation=2), features=27), r"\(MaxPool\)"),
    "transposed": (headed(nn.ConvTranspose2d(3, 2, 3), features=98), r"\(ConvTranspose\) of module 'part0'"),
    "reshaped-weight": (Reshaped(), r"\(Conv\) .*: expected a weight and a bias that are parameters"),
    "no-logits": (nn.Sequential(nn.Conv2d(3, 3, 5)), r"output has shape \(3, 1, 1\); expected logits"),
    "layer-used-twice": (Twice(), r"parameter 'conv.weight' is used more than once \(by 'conv' and 'conv'\)"),
    "data-dependent-branch": (
        Branching(),
        r"^Branching at test_capture.py:\d+ \(`.*x.sum\(\) > 0 .*`\): it decides",
    ),
    "batch-mixed-into-features": (Transposing(), r"\(Reshape\) .*: it merges the batch axis with another"),
    "no-layers": (stack(flatten=nn.Flatten()), r"^Sequential: the module has no parameters"),
    "wrong-input-size": (
        headed(nn.Conv2d(3, 4, 3), features=37),
        r"^Sequential, module 'head': sizes do not fit",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_module_that_cannot_be_exported_is_one_line_and_nothing_is_written(name, tmp_path, capfd):
    module, message = HOSTILE[name]
    layers = tuple(dict.fromkeys(path.rpartition(".")[0] for path, _ in module.named_parameters()))
    alpha = np.full((1, len(layers)), 0.1, np.float32)
    source = Source("hostile", module, InputSpec(3, 5, 5, (0.0,) * 3, (1.0,) * 3), layers, alpha)
    with pytest.raises(ExportError, match=message) as caught:
        export_bundle(source, tmp_path / "bundle")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_layers_are_named_by_module_path_and_parameters_as_in_torch():
    program = capture(Nested(), (3, 5, 5)).program
    assert [(layer.name, layer.kind) for layer in program.layers] == [
        ("block.conv", "conv"), ("block.norm", "norm"), ("head", "fc"),
    ]  # fmt: skip
    assert [layer.params for layer in program.layers] == [
        ("block.conv.weight",), ("block.norm.weight", "block.norm.bias"), ("head.weight", "head.bias"),
    ]  # fmt: skip
    assert [op.kind for op in program.ops()] == ["Conv", "GroupNorm", "Relu", "Reshape", "Fc"]


def test_group_norm_is_one_operation_with_its_own_parameters():
    program = capture(conv4_source().module, (1, 28, 28)).program
    norms = [op for op in program.ops() if op.kind == "GroupNorm"]
    assert [op.inputs[1:] for op in norms] == [(f"norm{i}.weight", f"norm{i}.bias") for i in range(1, 5)]
    assert all(op.attrs == {"groups": 8, "eps": 1e-5} for op in norms)
    assert program.tensors["norm1::inv_std"].shape == ("N", 8)


def test_the_epsilon_of_a_norm_survives_float32():
    values = [1e-5, 1e-3, 2.5e-6]
    norms = [nn.GroupNorm(2, 4, eps=eps) for eps in values]
    program = capture(headed(nn.Conv2d(3, 4, 3), *norms, features=36), (3, 5, 5)).program
    assert [op.attrs["eps"] for op in program.ops() if op.kind == "GroupNorm"] == values


def test_equal_parameters_stay_apart():
    module = headed(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GroupNorm(2, 4), features=36)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    program = capture(module, (3, 5, 5)).program
    assert {tensor.name for tensor in program.with_role("param")} == {
        name for name, _ in module.named_parameters()
    }


def test_the_argmax_type_is_the_smallest_that_holds_a_window():
    pools = [nn.MaxPool2d(kernel, 1) for kernel in (2, 4, 5)]
    program = capture(headed(*pools, features=3), (3, 9, 9)).program
    assert [program.tensors[f"part{index}::argmax"].dtype for index in range(3)] == ["bit2", "bit4", "uint8"]


def test_a_module_of_any_dtype_and_mode_is_captured_and_left_alone():
    module = Residual().double().train()
    before = copy.deepcopy(module.state_dict())
    capture(module, (2, 5, 5))
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_exporter_is_quiet_and_logging_comes_back(capfd, caplog):
    capture(Residual(), (2, 5, 5))
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    logging.getLogger("torch.onnx").error("still heard")
    assert "still heard" in caplog.text


def test_a_parameter_that_became_a_constant_is_kept_but_never_learned():
    module = Residual().eval()
    model = to_onnx(module, (2, 5, 5))
    params = frozenset(name for name, _ in module.named_parameters()) - {"left.bias"}
    network = import_forward(model, params)
    assert {layer.name: layer.params for layer in network.program.layers}["left"] == ("left.weight",)
    (conv,) = (op for op in network.program.ops() if op.layer == "left")
    np.testing.assert_array_equal(network.values[conv.inputs[2]], module.left.bias.detach())
    assert conv.inputs[2] not in network.origins


def test_layers_follow_the_order_of_the_step_size_table():
    names = ("fc", "norm4", *conv4_source().layer_names[:-2])
    program = capture(conv4_source().module, (1, 28, 28), names).program
    assert [layer.name for layer in program.layers] == list(conv4_source().layer_names)
    assert all(names[layer.index] == layer.name for layer in program.layers)


def test_a_table_of_other_layers_is_refused():
    with pytest.raises(
        ExportError, match="layers expected: head, other; found in the graph: head, left, right, stem"
    ):
        capture(Residual(), (2, 5, 5), ("head", "other"))


def test_the_program_survives_json():
    program = adaptation(conv4_source())
    assert program_from_json(program_to_json(program)) == program


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": np.zeros((3, 4), np.float32)}, r"alpha: expected shape \(3, 9\).*got \(3, 4\)"),
        ({"alpha": np.full((3, 9), np.nan, np.float32)}, "not finite"),
        ({"caps": np.zeros((2, 9), np.int64)}, r"caps: expected shape \(3, 9\)"),
        ({"benefits": np.full((3, 9), np.inf)}, "benefits: has values that are not finite"),
        ({"attention": {"other": {}}}, "attention for unknown layers: other"),
    ],
    ids=["alpha-shape", "alpha-nan", "caps-shape", "benefits-inf", "attention-layer"],
)
def test_a_source_that_does_not_fit_together_is_refused(change, message):
    with pytest.raises(ExportError, match=message):
        Source(**{**vars(conv4_source()), **change})


def test_attention_on_a_norm_of_single_channels_is_refused():
    module = headed(nn.Conv2d(3, 4, 3), nn.GroupNorm(4, 4), features=36)
    layers = ("part0", "part1", "head")
    spec = InputSpec(3, 5, 5, (0.0,) * 3, (1.0,) * 3)
    source = Source("t", module, spec, layers, np.ones((1, 3), np.float32), random_attention(module, 0))
    with pytest.raises(ExportError, match="'part1': attention needs more than one channel per group"):
        adaptation(source)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    source = conv4_source()
    with torch.no_grad():
        source.module.conv2.weight[0] = torch.nan
    with pytest.raises(ExportError, match=r"'conv2.weight' has values that are not finite"):
        export_bundle(source, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rho_fw", 1.0),
        ("rho_fw", -0.1),
        ("rho_bw", 1.5),
        ("rho_bw", float("nan")),
        ("cap", 0),
        ("bw_input", "l2"),
    ],
)
def test_attention_settings_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ExportError, match=f"{field}: expected .* got {value!r}"):
        AttentionSettings(**{field: value})
