"""The coverage report: every operation, its rule, what it stores, and what stands in the way."""

from __future__ import annotations

import re

import onnx
import pytest
import torch
from edge_adapt.edge.program import Tensor
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.capture import capture
from edge_adapt.export.coverage import coverage_report
from onnx import parser
from torch import nn

from .cases import stack


def small() -> nn.Module:
    return stack(conv=nn.Conv2d(2, 4, 3), norm=nn.GroupNorm(2, 4), relu=nn.ReLU(), pool=nn.MaxPool2d(2),
                 flat=nn.Flatten(), head=nn.Linear(16, 3))  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cell, self.head = nn.Linear(6, 4), nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.cell(torch.relu(self.stem(x)))[0][:, -1])


def test_every_operation_is_listed_with_its_rule_and_what_it_stores():
    report = coverage_report(small(), (2, 6, 6))
    assert report.refusal is None
    assert [(row.path, row.rule) for row in report.rows] == [
        ("conv", "Conv"), ("norm", "GroupNorm"), ("relu", "Relu"), ("pool", "MaxPool"), ("flat", "Reshape"),
        ("head", "Fc"),
    ]  # fmt: skip
    assert [row.stored for row in report.rows] == [
        (),
        (
            Tensor("norm::x_hat", ("N", 4, 4, 4), role="saved"),
            Tensor("norm::inv_std", ("N", 2), role="saved"),
        ),
        (Tensor("relu::mask", ("N", 4, 4, 4), "bit1", "saved"),),
        (Tensor("pool::argmax", ("N", 4, 2, 2), "bit2", "saved"),),
        (Tensor("flat", ("N", 16), role="saved"),),
        (),
    ]
    assert report.stored_bytes == 4 * 64 + 4 * 2 + 64 // 8 + 16 * 2 // 8 + 4 * 16


def test_everything_that_the_forward_pass_saves_is_counted_once():
    module = small()
    program = differentiate(capture(module, (2, 6, 6)).program, {}, 1)
    written = {name for op in program.ops(("forward",)) for name in op.outputs}
    saved = [tensor for tensor in program.with_role("saved") if tensor.name in written]
    assert (
        coverage_report(module, (2, 6, 6)).stored_bytes == sum(tensor.size_bytes(1) for tensor in saved) > 0
    )


def test_a_value_is_stored_where_it_is_first_needed():
    module = stack(a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 2))
    report = coverage_report(module, (4,))
    assert [[tensor.name for tensor in row.stored] for row in report.rows] == [["a"], ["b"], []]


def test_the_table_has_a_line_per_operation_and_a_summary():
    lines = coverage_report(small(), (2, 6, 6)).text.splitlines()
    assert re.fullmatch("module +operator +rule +stored for the backward pass, per sample", lines[0])
    assert (
        lines[2] == "norm    Add (5 nodes)  GroupNorm  norm::x_hat float32 256 B, norm::inv_std float32 8 B"
    )
    assert lines[-1] == "6 operations, 340 B stored per sample if all layers adapt"
    assert len({line.index(cell) for line, cell in zip(lines[1:3], ("Conv", "Add"), strict=True)}) == 1


def test_it_goes_on_past_what_is_not_supported():
    report = coverage_report(Recurrent(), (5, 6))
    rules = {row.path: row.rule for row in report.rows}
    assert rules["stem"] == "Fc"
    assert rules["head"] == "Fc"
    (cell,) = [row for row in report.rows if row.operator == "LSTM"]
    assert (cell.path, cell.rule, cell.stored) == ("cell", "", None)
    assert (
        cell.refusal
        == "recurrent layers are not supported; use 1-D convolutions or attention over the sequence"
    )
    assert "(LSTM) of module 'cell' at test_coverage.py:" in report.refusal
    bad = sum(not row.rule for row in report.rows)
    assert report.text.splitlines()[-1] == f"{len(report.rows)} operations, {bad} of them not supported"
    assert re.search(rf"^cell +LSTM +NOT SUPPORTED +{re.escape(cell.refusal)}$", report.text, re.MULTILINE)


def test_converted_norms_are_noted():
    module = stack(conv=nn.Conv2d(2, 4, 3), norm=nn.BatchNorm2d(4), flat=nn.Flatten(), head=nn.Linear(64, 3))
    report = coverage_report(module, (2, 6, 6))
    assert [row.rule for row in report.rows] == ["Conv", "Affine", "Reshape", "Fc"]
    assert report.notes[0].startswith("norm (BatchNorm2d, 4 channels): running statistics folded")
    assert report.notes[0] in report.text


def test_a_network_that_cannot_be_traced_is_a_refusal_without_rows():
    class Branching(nn.Linear):
        def forward(self, input):
            return super().forward(input if input.sum() > 0 else -input)

    report = coverage_report(Branching(4, 2), (4,))
    assert report.rows == ()
    assert report.refusal.startswith("Branching at test_coverage.py:")
    assert report.text == ""
    assert (
        coverage_report(nn.Linear(4, 2)).refusal
        == "a torch module needs sample_shape, the shape of one sample"
    )


@pytest.mark.parametrize("readable", [True, False])
def test_onnx_files_are_reported_too(readable, tmp_path):
    path = tmp_path / "model.onnx"
    text = '<ir_version: 8, opset_import: ["" : 18]> g (float[N, 4] x) => (float out) { m = Mish (x) out = Relu (m) }'
    onnx.save(parser.parse_model(text), path)
    if not readable:
        path.write_bytes(path.read_bytes()[:20])
    report = coverage_report(path)
    assert [(row.path, row.rule) for row in report.rows] == ([("m", ""), ("out", "Relu")] if readable else [])
    assert ("(Mish) is not supported; use one of" if readable else "not an ONNX file") in report.refusal
