"""ONNX files of other frameworks: what loading makes of them, and how it refuses what is none."""

from __future__ import annotations

import json
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from edge_adapt.export import ExportError, export_bundle
from edge_adapt.export.onnx_import import import_forward
from edge_adapt.export.reading.file import load_onnx
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from torch import nn

CONV = "y = Conv <pads = [1, 1, 1, 1]> (x, w)"
WEIGHT = "4x3x3x3 w"


def written(path, body: str, *weights: str, version: int = 18, given="float[N, 3, 6, 6] x", **arrays) -> str:
    """A file from its textual form; weights ("4x3x3x3 w") get random values."""
    text = f'<ir_version: 8, opset_import: ["" : {version}]> g ({given}) => (float out) {{ {body} }}'
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for size, name in (weight.split() for weight in weights):
        arrays[name] = rng.uniform(0.5, 2, tuple(map(int, size.split("x")))).astype(np.float32)
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in arrays.items())
    onnx.save(model, path)
    return str(path)


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    infos = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    return {i.name: [d.dim_value or d.dim_param for d in i.type.tensor_type.shape.dim] for i in infos}


def notes_of(bundle) -> list[str]:
    return json.loads((bundle / "manifest.json").read_text())["provenance"]["notes"]


def check_equal(path, model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """The loaded model computes what the file computes, and every value has the shape that was noted."""
    noted = shapes_of(model)
    wanted = [name for node in model.graph.node for name in node.output if name]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in wanted)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        x = np.random.default_rng(batch).normal(size=(batch, *shape)).astype(np.float32)
        (expected,) = session.run(None, {"x": x})
        found = dict(
            zip(wanted, ReferenceEvaluator(probe).run(None, {model.graph.input[0].name: x}), strict=True)
        )
        np.testing.assert_allclose(found[model.graph.output[0].name], expected, rtol=1e-5, atol=1e-5)
        for name in wanted:
            assert [batch if axis == "N" else axis for axis in noted[name]] == list(np.shape(found[name])), (
                name
            )


SIZES = """
    s = Shape (y)
    n = Gather (s, zero)
    one = Unsqueeze (n, axes)
    half = Slice (s, first, last)
    twice = Mul (half, two)
    target = Concat <axis = 0> (four, twice)
    whole = Concat <axis = 0> (one, target)
    up = Resize <mode = "nearest"> (y, , , whole)
    flat = Concat <axis = 0> (one, rest)
    out = Reshape (up, flat)
"""
NUMBERS = {
    "zero": np.int64(0), "axes": np.array([0]), "first": np.array([2]), "last": np.array([4]),
    "two": np.int64(2), "four": np.array([4]), "rest": np.array([-1]),
}  # fmt: skip


def test_sizes_that_the_graph_computes_become_constants_and_the_batch_stays_open(tmp_path):
    path = written(tmp_path / "m.onnx", CONV + SIZES, WEIGHT, **NUMBERS)
    model, params = load_onnx(path)
    assert params == {"w"}
    assert shapes_of(model)["up"] == ["N", 4, 12, 12]
    assert shapes_of(model)["out"] == ["N", 4 * 144]
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert constants["twice"].tolist() == [12, 12]
    assert "whole" not in constants
    check_equal(path, model, (3, 6, 6))


def test_a_batch_that_the_file_fixed_becomes_free(tmp_path):
    body = f"{CONV} out = Reshape (y, target)"
    path = written(tmp_path / "m.onnx", body, WEIGHT, given="float[1, 3, 6, 6] x", target=np.array([1, -1]))
    model, _ = load_onnx(path)
    assert shapes_of(model)["x"] == ["N", 3, 6, 6]
    assert shapes_of(model)["out"] == ["N", 144]
    x = np.ones((3, 3, 6, 6), np.float32)
    single = ReferenceEvaluator(path)
    expected = np.concatenate([single.run(None, {"x": row[None]})[0] for row in x])
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, {"x": x})[0], expected, rtol=1e-6)


def test_a_batch_mixed_into_another_axis_is_not_called_the_batch(tmp_path):
    body = f"{CONV} r = Reshape (y, target) out = Relu (r)"
    model, _ = load_onnx(written(tmp_path / "m.onnx", body, WEIGHT, target=np.array([-1, 6])))
    assert shapes_of(model)["r"] == ["24N", 6]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.group, self.batch = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.BatchNorm2d(8)
        self.layer, self.head = nn.LayerNorm(32), nn.Linear(32, 5)
        self.position = nn.Parameter(torch.randn(4, 8))

    def forward(self, x):
        y = torch.relu(self.batch(self.group(self.conv(x))))
        y = nn.functional.interpolate(y, size=(2, 2), mode="nearest").flatten(2).transpose(1, 2)
        return self.head(self.layer((y + self.position).reshape(y.shape[0], -1)))


def by_torch(path, *, dynamo: bool, opset: int, fixed: bool = False) -> str:
    torch.manual_seed(0)
    module = Network().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    dynamic = {} if fixed else (
        {"dynamic_shapes": ({0: torch.export.Dim("b")},)} if dynamo else {"dynamic_axes": {"x": {0: "b"}}}
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1 if fixed else 2, 3, 4, 4),), str(path), opset_version=opset,
                          input_names=["x"], dynamo=dynamo, **dynamic)  # fmt: skip
    return str(path)


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("fixed", [False, True])
def test_files_of_torchs_older_exporter_are_brought_to_opset_18(opset, fixed, tmp_path):
    path = by_torch(tmp_path / "m.onnx", dynamo=False, opset=opset, fixed=fixed)
    model, params = load_onnx(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert {"conv.weight", "batch.weight", "head.bias", "position"} <= params
    assert not {"batch.running_mean", "batch.running_var"} & params
    assert [node.input[1:] for node in model.graph.node if node.op_type == "LayerNormalization"] == [
        ["layer.weight", "layer.bias"]
    ]
    if not fixed:
        check_equal(path, model, (3, 4, 4))


@pytest.mark.parametrize("opset", [20, 21])
def test_files_of_the_new_exporter_with_external_weights_are_read(opset, tmp_path):
    path = by_torch(tmp_path / "m.onnx", dynamo=True, opset=opset)
    model, params = load_onnx(path)
    assert {"conv.weight", "batch.weight", "layer.bias", "head.bias", "position"} <= params
    check_equal(path, model, (3, 4, 4))


@pytest.mark.parametrize(
    ("dynamo", "opset", "fixed"), [(False, 11, True), (False, 17, False), (True, 21, False)]
)
def test_the_bundle_of_a_file_predicts_what_the_file_does(dynamo, opset, fixed, tmp_path):
    path = by_torch(tmp_path / "m.onnx", dynamo=dynamo, opset=opset, fixed=fixed)
    bundle = export_bundle(path, tmp_path / "bundle")
    x = np.random.default_rng(1).normal(size=(1, 3, 4, 4)).astype(np.float32)
    sessions = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        for file in (path, bundle / "eval.onnx")
    ]
    expected, found = (session.run(None, {session.get_inputs()[0].name: x})[0] for session in sessions)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    (note,) = notes_of(bundle)
    assert note.endswith("(BatchNormalization): running statistics folded into a fixed scale and shift")


PARAMETERS = {
    "weights-behind-views": ("t = Transpose <perm = [1, 0]> (w) f = Flatten (x) out = MatMul (f, t)",
                             ("5x108 w",), {"w"}),
    "attention-scale": ("s = Mul (x, k) out = Relu (s)", ("1 k",), set()),
    "layer-scale": ("s = Mul (x, k) out = Relu (s)", ("3x1x1 k",), {"k"}),
    "constant-divisor": ("s = Div (x, k) out = Relu (s)", ("3x1x1 k",), set()),
    "read-by-others-too": ("s = Mul (x, k) t = Div (s, k) out = Relu (t)", ("3x6x1 k",), set()),
    "instance-norm": ("out = InstanceNormalization (x, k, b)", ("3 k", "3 b"), {"k", "b"}),
    "running-statistics": ("out = BatchNormalization (x, k, b, m, v)",
                           ("3 k", "3 b", "3 m", "3 v"), {"k", "b"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_what_layers_learn(name, tmp_path):
    body, initializers, expected = PARAMETERS[name]
    assert load_onnx(written(tmp_path / "m.onnx", body, *initializers))[1] == expected


def test_weights_in_constant_nodes_become_initializers(tmp_path):
    body = "w = Constant <value = float[2, 3, 1, 1] {1, 2, 3, 4, 5, 6}> () out = Conv (x, w)"
    model, params = load_onnx(written(tmp_path / "m.onnx", body))
    assert params == {"w"}
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert numpy_helper.to_array(model.graph.initializer[0])[1, 2, 0, 0] == 6


def test_weights_that_an_exporter_merged_are_told_apart_again(tmp_path):
    body = "v = Identity (w) a = Mul (x, w) out = Mul (a, v)"
    path = written(tmp_path / "m.onnx", body, "3x1x1 w")
    model, params = load_onnx(path)
    assert params == {"v", "w"}
    check_equal(path, model, (3, 6, 6))


def test_vectors_that_an_exporter_merged_are_told_apart_but_matrices_stay_tied(tmp_path):
    body = "n = BatchNormalization (x, k, b, b, k) m = MatMul (n, w) out = MatMul (m, w)"
    path = written(tmp_path / "m.onnx", body, "3 k", "3 b", "6x6 w")
    model, params = load_onnx(path)
    assert params == {"k", "b", "w"}
    assert list(model.graph.node[0].input) == ["x", "k", "b", "b.2", "k.2"]
    check_equal(path, model, (3, 6, 6))


def test_newer_opsets_are_read_where_nothing_changed_but_types(tmp_path):
    path = written(tmp_path / "m.onnx", f"{CONV} g = Gelu (y) out = Relu (g)", WEIGHT, version=22)
    model, _ = load_onnx(path)
    assert shapes_of(model)["out"] == ["N", 4, 6, 6]
    check_equal(path, model, (3, 6, 6))


LAYER_NORM = """
    m = ReduceMean <keepdims = 1> (x, axes)
    d = Sub (x, m)
    {square}
    v = ReduceMean <keepdims = {keepdims}> (q, {axes})
    t = Add ({eps}, v)
    r = Sqrt (t)
    n = Div (d, r)
    {end}
"""
SPELLINGS = {
    "no-affine": ({}, 1),
    "square-as-product": ({"square": "q = Mul (d, d)"}, 1),
    "own-difference": ({"square": "e = Sub (x, m) q = Pow (e, two)"}, 1),
    "scale-only": ({"end": "out = Mul (w, n)"}, 1),
    "scale-and-bias": ({"end": "s = Mul (n, w) out = Add (b, s)"}, 1),
    "scale-read-twice": ({"end": "s = Mul (n, w) a = Add (s, b) out = Add (s, a)"}, 1),
    "cube": ({"square": "q = Pow (d, three)"}, 0),
    "other-product": ({"square": "q = Mul (d, x)"}, 0),
    "other-axes": ({"axes": "middle"}, 0),
    "changing-epsilon": ({"eps": "m"}, 0),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_layer_norm_in_pieces_becomes_one_node_and_nothing_else_does(name, tmp_path):
    parts, count = SPELLINGS[name]
    spelled = {
        "square": "q = Pow (d, two)",
        "axes": "axes",
        "eps": "eps",
        "end": "out = Relu (n)",
        "keepdims": 1,
    }
    numbers = {
        "axes": np.array([-2, -1]), "middle": np.array([-1, 1]), "two": np.float32(2), "three": np.float32(3),
        "eps": np.float32(0.1),
    }  # fmt: skip
    body = LAYER_NORM.format(**{**spelled, **parts})
    path = written(tmp_path / "m.onnx", body, "6x6 w", "6x6 b", **numbers)
    model, _ = load_onnx(path)
    assert [node.op_type for node in model.graph.node].count("LayerNormalization") == count
    if name not in ("cube", "other-product", "changing-epsilon"):
        check_equal(path, model, (3, 6, 6))


def text_file(path) -> None:
    path.write_text("this is no model, only some text\n" * 9)


def truncated(path) -> None:
    written(path, CONV.replace("y =", "out ="), WEIGHT)
    path.write_bytes(path.read_bytes()[:-40])


def external(path) -> None:
    written(path, CONV.replace("y =", "out ="), WEIGHT)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)


def external_missing(path) -> None:
    external(path)
    (path.parent / "w.bin").unlink()


def external_short(path) -> None:
    external(path)
    (path.parent / "w.bin").write_bytes(b"1234")


def with_weight(path, dtype) -> None:
    written(path, "h = Cast <to = 1> (w) out = Conv (x, h)")
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 3, 3, 3), dtype), "w"))
    onnx.save(model, path)


def foreign(path) -> None:
    written(path, "out = Relu (x)")
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "BiasGelu"
    onnx.save(model, path)


REFUSED = {
    "directory": (lambda path: path.mkdir(), "is a directory; name an .onnx file"),
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "not an ONNX file"),
    "text": (text_file, "not an ONNX file"),
    "picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))), "not an ONNX file"),
    "truncated": (truncated, "not an ONNX file, or cut short|not a valid ONNX model"),
    "weights-missing": (external_missing, r"the weights of 'w' are in 'w.bin', which is missing; put"),
    "weights-short": (external_short, r"'w.bin' has 4 bytes, but 'w' ends at byte \d+; copy"),
    "unknown-op": (lambda p: written(p, "out = Frobnicate (x)"), r"not a valid ONNX model .*Frobnicate"),
    "half-precision": (lambda p: with_weight(p, np.float16), r"'w' \(node 'h' \(Cast\)\) is float16; .* in float32"),
    "double-precision": (lambda p: with_weight(p, np.float64), r"'w' .* is double"),
    "quantised": (lambda p: written(p, "s = DynamicQuantizeLinear (x) out = Cast <to = 1> (s)"
                                    .replace("s = D", "s, a, b = D")), r"node 's' \(DynamicQuantizeLinear\) is quant"),
    "foreign-domain": (foreign, r"node 'out' \(BiasGelu\) is of domain 'com.microsoft'"),
    "two-inputs": (lambda p: written(p, "out = Add (x, z)", given="float[N, 3] x, float[N, 3] z"),
                   r"expected one input, got 2 inputs \(x, z\); keep one"),
    "integer-input": (lambda p: written(p, "out = Cast <to = 1> (x)", given="int64[N, 3] x"),
                      r"input 'x' is int64; expected float32"),
    "open-axes": (lambda p: written(p, f"{CONV} out = Relu (y)", WEIGHT, given="float[N, 3, H, W] x"),
                  r"input 'x' leaves axes open \(H, W\); give the shape of one sample"),
    "new-opset": (lambda p: written(p, "out = Swish (x)", version=24), r"opset 24, where node 'out' \(Swish\) is not"),
    "wrong-sizes": (lambda p: written(p, "f = Flatten (x) out = MatMul (f, w)", "7x5 w"),
                    r"not a valid|shapes do not fit"),
    "batch-built-in": (lambda p: written(p, "out = Concat <axis = 1> (x, k)", "1x2x6x6 k",
                                         given="float[1, 3, 6, 6] x"), r"shapes do not fit when the batch grows"),
    "shape-of-values": (lambda p: written(p, "i = NonZero (x) out = Cast <to = 1> (i)"),
                        r"the shape of 'out' depends on values of the data"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_loaded_is_one_line_that_names_the_file(name, tmp_path, capfd):
    make, message = REFUSED[name]
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ExportError, match=message) as caught:
        load_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) - len(str(path)) < 350
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bytes_are_refused_or_read_but_never_crash(seed, tmp_path):
    whole = by_torch(tmp_path / "m.onnx", dynamo=False, opset=17)
    content = np.fromfile(whole, np.uint8)
    rng = np.random.default_rng(seed)
    refusals = []
    for _ in range(25):
        damaged = content.copy()
        damaged[rng.integers(len(content), size=4)] = rng.integers(256, size=4)
        damaged.tofile(tmp_path / "damaged.onnx")
        try:
            import_forward(*load_onnx(tmp_path / "damaged.onnx"))
        except ExportError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert all(len(text.splitlines()) == 1 for text in refusals)


def test_open_axes_are_fixed_by_the_shape_of_a_sample(tmp_path):
    path = written(tmp_path / "m.onnx", f"{CONV} out = Relu (y)", WEIGHT, given="float[N, 3, H, W] x")
    model, _ = load_onnx(path, (3, 5, 7))
    assert shapes_of(model)["out"] == ["N", 4, 5, 7]
    with pytest.raises(
        ExportError, match=r"input 'x' has samples of shape \(3, H, W\), expected \(1, 5, 7\)"
    ):
        load_onnx(path, (1, 5, 7))
