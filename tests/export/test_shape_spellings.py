"""Spellings of other exporters, node by node, and what is refused: plain ONNX graphs without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export import ExportError
from edge_adapt.export.onnx_import import import_forward
from edge_adapt.export.reading.shapes import with_shapes
from onnx import TensorProto, helper, numpy_helper

SAMPLE = (4, 6, 8)
HEAD = frozenset({"head.weight"})
Node = tuple[str, Sequence[str], Mapping[str, Any]]


def model(nodes: Sequence[Node], constants: Mapping[str, Any], features: int) -> onnx.ModelProto:
    """x, then the nodes, each reading what it names ("x", "y0", "y1", ...), then a linear head on the last."""
    made = []
    for at, (kind, inputs, attrs) in enumerate(nodes):
        outputs = attrs.get("outputs", [f"y{at}"])
        plain = {name: value for name, value in attrs.items() if name != "outputs"}
        made.append(helper.make_node(kind, inputs, outputs, f"{kind}_{at}", **plain))
    last = made[-1].output[-1]
    made.append(helper.make_node("Flatten", [last], ["flat"], "flatten"))
    made.append(helper.make_node("Gemm", ["flat", "head.weight"], ["logits"], "head", transB=1))
    weight = np.random.default_rng(0).normal(size=(3, features)).astype(np.float32)
    held = {name: np.asarray(value) for name, value in constants.items()}
    initializers = [numpy_helper.from_array(v, n) for n, v in {**held, "head.weight": weight}.items()]
    graph = helper.make_graph(
        made,
        "spelling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", *SAMPLE))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("N", 3))],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def imported(source: onnx.ModelProto) -> Any:
    return import_forward(with_shapes(Path("spelling.onnx"), source, HEAD, SAMPLE), HEAD)


INT = np.int64
SPELLINGS: dict[str, tuple[list[Node], dict[str, Any], int, list[str]]] = {
    "global-average-pool": ([("GlobalAveragePool", ["x"], {})], {}, 4, ["Mean"]),
    "global-max-pool": ([("GlobalMaxPool", ["x"], {})], {}, 4, ["MaxPool"]),
    "mean-of-negative-axes": (
        [("ReduceMean", ["x", "axes"], {"keepdims": 0})], {"axes": np.array([-1, 1], INT)}, 6, ["Mean"]),
    "split-in-two": (
        [("Split", ["x"], {"axis": 1, "num_outputs": 2, "outputs": ["a", "b"]}), ("Sub", ["a", "b"], {})],
        {}, 96, ["Slice", "Slice", "Sub"]),
    "split-unevenly": (
        [("Split", ["x", "sizes"], {"axis": -1, "outputs": ["a", "b"]})],
        {"sizes": np.array([3, 5], INT)}, 120, ["Slice"]),
    "gather-one": ([("Gather", ["x", "i"], {"axis": 2})], {"i": np.array(-2, INT)}, 32, ["Slice"]),
    "gather-neighbours": (
        [("Gather", ["x", "i"], {"axis": 2})], {"i": np.array([1, 2, 3], INT)}, 96, ["Slice"]),
    "part-of-a-transposed": (
        [("Transpose", ["x"], {"perm": [2, 0, 3, 1]}), ("Gather", ["y0", "i"], {"axis": 0})],
        {"i": np.array(3, INT)}, 32, ["Slice", "Transpose"]),
    "cut-of-a-transposed": (
        [("Transpose", ["x"], {"perm": [1, 0, 3, 2]}), ("Slice", ["y0", "from", "to", "axes"], {}),
         ("Squeeze", ["y1", "axes"], {})],
        {"from": np.array([2], INT), "to": np.array([3], INT), "axes": np.array([0], INT)}, 48,
        ["Slice", "Transpose"]),
    "slice-without-axes": (
        [("Slice", ["x", "from", "to"], {})],
        {"from": np.array([0, 1], INT), "to": np.array([2**63 - 1, -1], INT)}, 96, ["Slice"]),
    "slice-of-everything": (
        [("Slice", ["x", "from", "to", "axes"], {})],
        {"from": np.array([0], INT), "to": np.array([2**31], INT), "axes": np.array([3], INT)}, 192, []),
    "pad-some-axes": (
        [("Pad", ["x", "pads", "value", "axes"], {})],
        {"pads": np.array([1, 0, 0, 2], INT), "value": np.float32(0.5), "axes": np.array([2, -1], INT)},
        4 * 7 * 10, ["Pad"]),
    "squeeze-and-unsqueeze": (
        [("Unsqueeze", ["x", "axis"], {}), ("Squeeze", ["y0", "axis"], {})],
        {"axis": np.array([2], INT)}, 192, ["Reshape", "Reshape"]),
    "flatten-from-the-second": ([("Flatten", ["x"], {"axis": 1})], {}, 192, ["Reshape"]),
    "dropout": ([("Dropout", ["x"], {})], {}, 192, []),
    "sum": ([("ReduceSum", ["x", "axes"], {"keepdims": 0})], {"axes": np.array([1, -1], INT)}, 6, ["Mean", "Scale"]),
    "square": ([("Pow", ["x", "two"], {})], {"two": np.float32(2)}, 192, ["Mul"]),
    "pixel-shuffle": (
        [("DepthToSpace", ["x"], {"blocksize": 2, "mode": "CRD"})], {}, 192, ["Reshape", "Transpose", "Reshape"]),
    "depth-to-space": (
        [("DepthToSpace", ["x"], {"blocksize": 2})], {}, 192, ["Reshape", "Transpose", "Reshape"]),
    "space-to-depth": (
        [("SpaceToDepth", ["x"], {"blocksize": 2})], {}, 192, ["Reshape", "Transpose", "Reshape"]),
    "scalar-on-the-left": (
        [("Sub", ["one", "x"], {}), ("Div", ["y0", "two"], {}), ("Neg", ["y1"], {})],
        {"one": np.float32(1), "two": np.array([[2.0]], np.float32)}, 192, ["Scale"] * 3),
    "same-padding-upper": (
        [("MaxPool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"})],
        {}, 4 * 3 * 4, ["MaxPool"]),
    "same-padding-lower": (
        [("AveragePool", ["x"], {"kernel_shape": [2, 3], "strides": [1, 2], "auto_pad": "SAME_LOWER"})],
        {}, 4 * 6 * 4, ["AveragePool"]),
    "valid-padding": (
        [("AveragePool", ["x"], {"kernel_shape": [4, 3], "strides": [3, 3], "auto_pad": "VALID"})],
        {}, 4 * 1 * 2, ["AveragePool"]),
    "resize-with-default-rounding": (
        [("Resize", ["x", "", "scales"], {"mode": "nearest"})],
        {"scales": np.array([1, 1, 2, 3], np.float32)}, 4 * 12 * 24, ["Resize"]),
    "resize-pytorch-half-pixel": (
        [("Resize", ["x", "", "", "sizes"],
          {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel", "axes": [2, 3]})],
        {"sizes": np.array([9, 4], INT)}, 4 * 9 * 4, ["Resize"]),
    "resize-linear-asymmetric": (
        [("Resize", ["x", "", "scales"], {"mode": "linear", "coordinate_transformation_mode": "asymmetric"})],
        {"scales": np.array([1, 1, 2, 1], np.float32)}, 4 * 12 * 8, ["Resize"]),
    "einsum-turned-round": (
        [("Einsum", ["x", "x"], {"equation": "b c i d, b c j d -> b c j i"})], {}, 4 * 36, ["MatMul"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling_means_what_onnxruntime_computes(name):
    nodes, constants, features, kinds = SPELLINGS[name]
    source = model(nodes, constants, features)
    onnx.checker.check_model(source)
    network = imported(source)
    found = [op.kind for op in network.program.ops(("forward",))]
    assert found[: len(kinds)] == kinds
    assert found[-1] == "Fc"
    x = np.random.default_rng(1).normal(size=(3, *SAMPLE)).astype(np.float32)
    session = onnxruntime.InferenceSession(source.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    logits = network.program.outputs["logits"]
    result = interpret(network.program, {**network.values, "images": x}, [logits])[logits]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


REFUSED: dict[str, tuple[list[Node], dict[str, Any], int, str]] = {
    "mean-of-the-batch": (
        [("ReduceMean", ["x", "axes"], {})], {"axes": np.array([0], INT)}, 192,
        r"node 'ReduceMean_0' \(ReduceMean\): a mean over axes \[0\]; expected fixed axes without the batch"),
    "flipped": (
        [("Slice", ["x", "from", "to", "axes", "steps"], {})],
        {"from": np.array([-1], INT), "to": np.array([-(2**31)], INT), "axes": np.array([3], INT),
         "steps": np.array([-1], INT)}, 192,
        r"node 'Slice_0' \(Slice\): it takes -1:-\d+:-1 of axis 3; expected one run of neighbours"),
    "every-second": (
        [("Slice", ["x", "from", "to", "axes", "steps"], {})],
        {"from": np.array([0], INT), "to": np.array([8], INT), "axes": np.array([3], INT),
         "steps": np.array([2], INT)}, 96, r"it takes 0:8:2 of axis 3; expected one run of neighbours"),
    "gather-permuted": (
        [("Gather", ["x", "i"], {"axis": 1})], {"i": np.array([2, 0, 1], INT)}, 144,
        r"node 'Gather_0' \(Gather\): it takes elements \[2, 0, 1\] of axis 1; .* join them with torch.cat"),
    "batch-moved": (
        [("Transpose", ["x"], {"perm": [1, 0, 2, 3]}), ("Relu", ["y0"], {}),
         ("Transpose", ["y1"], {"perm": [1, 0, 2, 3]})], {}, 192,
        r"\(Transpose\): it moves the batch axis \(perm \[1, 0, 2, 3\]\); .*batch_first=True"),
    "batch-merged": (
        [("Reshape", ["x", "shape"], {}), ("Relu", ["y0"], {}), ("Reshape", ["y1", "back"], {})],
        {"shape": np.array([-1, 8], INT), "back": np.array([-1, 192], INT)}, 192,
        r"node 'Reshape_\d' \(Reshape\): it merges the batch axis with another or moves it; keep the samples apart"),
    "reflected": (
        [("Pad", ["x", "pads"], {"mode": "reflect"})], {"pads": np.array([0, 0, 1, 0, 0, 0, 1, 0], INT)}, 256,
        r"\(Pad\): padding .* mode reflect; expected constants"),
    "padded-and-cropped": (
        [("Pad", ["x", "pads"], {})], {"pads": np.array([0, 0, 1, 0, 0, 0, -1, 0], INT)}, 192,
        r"\(Pad\): padding \[0, 0, 1, 0\] before and \[0, 0, -1, 0\] after"),
    "cubic": (
        [("Resize", ["x", "", "scales"], {"mode": "cubic"})], {"scales": np.array([1, 1, 2, 2], np.float32)}, 768,
        r"\(Resize\): expected nearest or linear over one or two spatial axes, .* got cubic, half_pixel"),
    "odd-factor": (
        [("Resize", ["x", "", "scales"], {"mode": "nearest"})], {"scales": np.array([1, 1, 1.6, 1], np.float32)},
        4 * 9 * 8, r"factor 1.6 makes 9 of 6, which is not their ratio; .* F.interpolate\(x, size=\(9, 8\)\)"),
    "dilated-pool": (
        [("MaxPool", ["x"], {"kernel_shape": [2, 2], "dilations": [2, 2]})], {}, 4 * 4 * 6,
        r"node 'MaxPool_0' \(MaxPool\): expected windows over one or two axes, without dilation"),
    "padding-that-counts-rounded-up": (
        [("AveragePool", ["x"], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1],
                                 "ceil_mode": 1, "count_include_pad": 1})],
        {}, 4 * 4 * 5, r"\(AveragePool\): windows that reach over the padding \(ceil_mode\)"),
    "matrix-for-all": (
        [("Slice", ["x", "from", "to", "axes"], {}), ("Transpose", ["x"], {"perm": [0, 1, 3, 2]}),
         ("MatMul", ["y0", "y1"], {})],
        {"from": np.array([0], INT), "to": np.array([1], INT), "axes": np.array([1], INT)}, 4 * 36,
        r"\(MatMul\): a product of shapes \('N', 1, 6, 8\) and \('N', 4, 8, 6\); expected the same batch and leading"),
    "constant-joined": (
        [("Concat", ["x", "extra"], {"axis": 1})], {"extra": np.zeros((3, 1, 6, 8), np.float32)}, 240,
        "shapes do not fit when the batch grows|expected values of every sample"),
    "batch-joined": (
        [("Concat", ["x", "x"], {"axis": 0})], {}, 192,
        r"\(Concat\): (expected values of every sample|its shape is \(2N)"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_per_sample_is_refused_by_name(name):
    nodes, constants, features, message = REFUSED[name]
    with pytest.raises(ExportError, match=message) as caught:
        imported(model(nodes, constants, features))
    assert len(str(caught.value).splitlines()) == 1
