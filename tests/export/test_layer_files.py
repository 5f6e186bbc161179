"""Layers as plain ONNX files spell them: every spelling computes here what stock onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export import ExportError
from edge_adapt.export.network import Network
from edge_adapt.export.onnx_import import import_forward
from edge_adapt.export.reading.file import load_onnx
from onnx import TensorProto, helper, numpy_helper, save_model

RNG = np.random.default_rng(0)
Node = tuple[str, list[str], dict[str, Any]]
MAPS, SIGNALS, TOKENS, VECTORS = (6, 9, 8), (6, 11), (5, 6), (6,)


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: RNG.uniform(0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}


def conv(weight: tuple[int, ...], **attrs: Any) -> tuple[list[Node], dict[str, np.ndarray]]:
    return [("Conv", ["x", "w", "b"], attrs)], weights(w=weight, b=weight[:1])


BATCH_NORM = ("BatchNormalization", ["x", "s", "b", "m", "v"], {})
BATCH_NORM_WEIGHTS = weights(s=(6,), b=(6,), m=(6,), v=(6,))
FILES: dict[str, tuple[tuple[int, ...], list[Node], dict[str, np.ndarray], list[str]]] = {
    "conv-bare": (MAPS, *conv((4, 6, 3, 2)), ["Conv"]),
    "conv-same-upper": (MAPS, *conv((4, 6, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]), ["Conv"]),
    "conv-same-lower": (MAPS, *conv((4, 3, 4, 2), auto_pad="SAME_LOWER", strides=[2, 1], group=2), ["Conv"]),
    "conv-valid": (MAPS, *conv((4, 6, 3, 2), auto_pad="VALID", strides=[2, 3]), ["Conv"]),
    "conv-signal-same": (SIGNALS, *conv((4, 6, 4), auto_pad="SAME_LOWER", strides=[2]), ["Conv"]),
    "conv-signal-uneven-pads": (SIGNALS, *conv((6, 2, 4), pads=[0, 3], group=3), ["Conv"]),
    "gemm": (VECTORS, [("Gemm", ["x", "w", "b"], {})], weights(w=(6, 4), b=(4,)), ["Fc"]),
    "gemm-transposed-row-bias": (
        VECTORS, [("Gemm", ["x", "w", "b"], {"transB": 1})], weights(w=(4, 6), b=(1, 4)), ["Fc"]),
    "gemm-then-add": (
        VECTORS, [("Gemm", ["x", "w"], {"transB": 1}), ("Add", ["b", "y0"], {})], weights(w=(4, 6), b=(4,)), ["Fc"]),
    "matmul": (TOKENS, [("MatMul", ["x", "w"], {})], weights(w=(6, 4)), ["Fc"]),
    "matmul-then-add": (
        TOKENS, [("MatMul", ["x", "w"], {}), ("Add", ["y0", "b"], {})], weights(w=(6, 4), b=(4,)), ["Fc"]),
    "matmul-then-row": (
        TOKENS, [("MatMul", ["x", "w"], {}), ("Add", ["y0", "b"], {})], weights(w=(6, 4), b=(1, 1, 4)), ["Fc"]),
    "matmul-of-batched-weight": (TOKENS, [("MatMul", ["x", "w"], {})], weights(w=(1, 6, 4)), ["Fc"]),
    "batch-norm": (MAPS, [BATCH_NORM], BATCH_NORM_WEIGHTS, ["Affine"]),
    "batch-norm-of-vectors": (VECTORS, [BATCH_NORM], BATCH_NORM_WEIGHTS, ["Affine"]),
    "instance-norm": (
        MAPS, [("InstanceNormalization", ["x", "s", "b"], {"epsilon": 0.1})], weights(s=(6,), b=(6,)), ["GroupNorm"]),
    "group-norm": (
        MAPS, [("GroupNormalization", ["x", "s", "b"], {"num_groups": 2})], weights(s=(6,), b=(6,)), ["GroupNorm"]),
    "layer-norm": (
        TOKENS, [("LayerNormalization", ["x", "s", "b"], {})], weights(s=(6,), b=(6,)), ["LayerNorm"]),
    "layer-norm-of-maps-no-bias": (
        MAPS, [("LayerNormalization", ["x", "s"], {"axis": 2, "epsilon": 0.01})], weights(s=(9, 8)), ["LayerNorm"]),
    "shift-of-channels": (MAPS, [("Add", ["x", "b"], {})], weights(b=(1, 6, 1, 1)), ["Affine"]),
    "scale-then-shift": (
        MAPS, [("Mul", ["s", "x"], {}), ("Add", ["y0", "b"], {})], weights(s=(6, 1, 1), b=(6, 1, 1)), ["Affine"]),
    "difference-and-quotient": (
        TOKENS, [("Sub", ["x", "m"], {}), ("Div", ["y0", "s"], {})], weights(m=(6,), s=(6,)), ["Affine", "Affine"]),
}  # fmt: skip


OUTPUTS = {1: ("new_mean", "new_variance")}


def written(path: Any, shape: tuple[int, ...], nodes: list[Node], arrays: dict[str, np.ndarray]) -> str:
    """One layer and a head that makes logits of it."""
    made = [
        helper.make_node(
            kind, inputs, [f"y{at}", *OUTPUTS.get(attrs.get("training_mode"), ())], f"node{at}", **attrs
        )
        for at, (kind, inputs, attrs) in enumerate(nodes)
    ]
    made.append(helper.make_node("Flatten", [f"y{len(nodes) - 1}"], ["logits"], "flatten"))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", None])
    tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(made, "layer", [given], [result], tensors)
    version = 21 if any(kind == "GroupNormalization" for kind, _, _ in nodes) else 18  # that of torch's layer
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    save_model(model, str(path))
    return str(path)


def imported(path: str) -> Network:
    return import_forward(*load_onnx(path))


@pytest.mark.parametrize("name", FILES)
def test_every_spelling_computes_what_onnxruntime_computes(name, tmp_path):
    shape, nodes, arrays, kinds = FILES[name]
    path = written(tmp_path / "m.onnx", shape, nodes, arrays)
    network = imported(path)
    assert [op.kind for op in network.program.ops(("forward",)) if op.kind != "Reshape"] == kinds
    x = RNG.normal(size=(3, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    logits = network.program.outputs["logits"]
    found = interpret(network.program, {**network.values, "images": x}, [logits], np.float64)[logits]
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


def test_weights_are_transposed_where_the_file_has_them_the_other_way_around(tmp_path):
    shape, nodes, arrays, _ = FILES["matmul-then-add"]
    network = imported(written(tmp_path / "m.onnx", shape, nodes, arrays))
    assert network.origins["w"].transposed
    np.testing.assert_array_equal(network.values["w"], arrays["w"].T)
    assert not network.origins["b"].transposed


REFUSED = {
    "training-batch-norm": (
        MAPS, [("BatchNormalization", ["x", "s", "b", "m", "v"], {"training_mode": 1})], BATCH_NORM_WEIGHTS,
        "training_mode=1.*evaluation mode"),
    "gemm-alpha": (VECTORS, [("Gemm", ["x", "w", "b"], {"alpha": 2.0})], weights(w=(6, 4), b=(4,)), "alpha = beta = 1"),
    "gemm-of-one-bias": (VECTORS, [("Gemm", ["x", "w", "b"], {})], weights(w=(6, 4), b=(1,)), "the bias has shape"),
    "layer-norm-over-the-batch": (
        VECTORS, [("LayerNormalization", ["x", "s"], {"axis": 0})], weights(s=(6,)), "over the batch"),
    "middle-axis": (MAPS, [("Mul", ["x", "p"], {})], weights(p=(9, 1)), "one number for each channel"),
    "larger-parameter": ((1, 6), [("Add", ["x", "p"], {})], weights(p=(5, 6)), "make the other no larger"),
    "divided-by-zero": (
        TOKENS, [("Div", ["x", "p"], {})], {"p": np.array([1, 2, 0, 1, 1, 1], np.float32)}, "or by zero"),
    "left-matrix": (TOKENS, [("MatMul", ["w", "x"], {})], weights(w=(4, 5)), "as parameter; write w x as"),
    "three-dimensions": ((2, 3, 4, 5), [("Conv", ["x", "w"], {})], weights(w=(4, 2, 1, 1, 1)), "1-d or 2-d"),
    "computed-bias": (
        VECTORS, [("Gemm", ["x", "v"], {}), ("Gemm", ["x", "w", "y0"], {})], weights(v=(6, 4), w=(6, 4)),
        "its bias is computed"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_here_is_refused_in_one_line(name, tmp_path):
    shape, nodes, arrays, message = REFUSED[name]
    path = written(tmp_path / "m.onnx", shape, nodes, arrays)
    with pytest.raises(ExportError, match=message) as refusal:
        imported(path)
    assert f"node 'node{len(nodes) - 1}'" in str(refusal.value)
    assert "\n" not in str(refusal.value)
