"""Activations: recognised as torch writes them, gradients of autograd, the same in stock onnxruntime."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import torch
from edge_adapt.edge.reference.interpret import interpret
from edge_adapt.export import ExportError
from edge_adapt.export.capture import capture
from edge_adapt.export.onnx_graph import build_graph
from edge_adapt.export.onnx_import import import_forward
from edge_adapt.export.ops import RULES
from edge_adapt.export.ops.patterns import simplest
from edge_adapt.export.reading.graph import ForwardGraph
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from .cases_activations import ACTIVATIONS, SHAPE, Activation, Around, Branches, Function, Tokens, activation
from .ort import run_model


@cache
def branches() -> Activation:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return activation(Branches({name: make() for name, (make, _, _) in ACTIVATIONS.items()}), SHAPE)


@cache
def expected() -> dict[str, np.ndarray]:
    return branches().truth()


def of_branch(name: str, results: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients of what lies in or before one activation."""
    parts = (f"grad::stems.{name}.", f"grad::middles.{name}.")
    return {key: value for key, value in results.items() if key.startswith(parts)}


@cache
def interpreted() -> dict[str, np.ndarray]:
    return interpret(branches().program, branches().values(), list(expected()), np.float64)


@cache
def by_onnxruntime() -> dict[str, np.ndarray]:
    model = build_graph(branches().program, {}, {key: key for key in expected()}, adjustable=True)
    return run_model(model, branches().values())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_torch_writes_becomes_one_operation(name):
    _, kind, attrs = ACTIVATIONS[name]
    found = [op for op in branches().program.ops(("forward",)) if op.layer == f"middles.{name}"]
    assert [(op.kind, dict(op.attrs)) for op in found] == [(kind, attrs)]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_through_it_and_of_its_slopes_are_those_of_autograd(name):
    wanted = of_branch(name, expected())
    assert len(wanted) == (3 if "prelu" in name else 2)
    assert max(np.abs(value).max() for value in wanted.values()) > 1e-3
    for key, value in wanted.items():
        np.testing.assert_allclose(interpreted()[key], value, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_expansion_in_stock_onnxruntime_is_the_same(name):
    for key, value in of_branch(name, expected()).items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(by_onnxruntime()[key], value, atol=1e-5 * scale, err_msg=key)


def test_outputs_and_loss_are_torchs():
    assert set(branches().gradients) < set(expected())
    for key in set(expected()) - set(branches().gradients):
        np.testing.assert_allclose(interpreted()[key], expected()[key], atol=1e-8)
        np.testing.assert_allclose(by_onnxruntime()[key], expected()[key], rtol=1e-5, atol=1e-5)


def test_all_gradients_together_are_a_finite_difference_of_the_loss():
    one, rng = branches(), np.random.default_rng(11)
    steps = {
        key: rng.normal(size=interpreted()[f"grad::{key}"].shape) for key, _ in one.module.named_parameters()
    }
    known = one.values()

    def loss(size):
        moved = {key: known[key] + size * step for key, step in steps.items()}
        return float(interpret(one.program, {**known, **moved}, ["loss"], np.float64)["loss"])

    slope = sum(np.vdot(step, interpreted()[f"grad::{key}"]) for key, step in steps.items())
    assert (loss(1e-6) - loss(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-6)


def test_tokens_and_another_batch():
    torch.manual_seed(6)
    middle = nn.Sequential(nn.GELU(), nn.PReLU(4), nn.SiLU(), nn.ReLU6(), nn.Softmax(-1))
    one = activation(Tokens(middle), (4, 5), samples=3)
    wanted = one.truth()
    found = interpret(one.program, one.values(), list(wanted), np.float64)
    model = build_graph(one.program, {}, {key: key for key in wanted}, adjustable=True)
    by_ort = run_model(model, one.values())
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, atol=1e-8, err_msg=key)
        np.testing.assert_allclose(by_ort[key], value, atol=1e-5, err_msg=key)


def test_a_prelu_is_a_layer_of_its_own():
    layers = {layer.name: (layer.kind, layer.params) for layer in branches().program.layers}
    assert layers["middles.prelu"] == ("slope", ("middles.prelu.weight",))


@pytest.mark.parametrize("name", ["relu6", "leaky-relu", "hard-sigmoid"])
def test_masks_are_one_bit_an_element(name):
    mask = branches().program.tensors[f"middles.{name}::mask"]
    assert (mask.dtype, mask.role, mask.shape) == ("bit1", "saved", ("N", 4, 4, 5))


def test_a_softmax_over_another_axis_is_refused_by_name():
    with pytest.raises(ExportError, match=r"\(Softmax\) of module 'middle': axis 1 of 4.*permute"):
        capture(Around(nn.Softmax(1)), SHAPE)


def test_limits_in_the_other_order_and_products_that_only_look_alike():
    other = Function(lambda x: torch.clamp(x.clamp_max(0.5), min=-0.5))
    almost = Function(lambda x: 0.5 * x * (1 + torch.tanh(x)))
    program = capture(Branches({"other": other, "almost": almost}), SHAPE).program
    assert [op.kind for op in program.ops() if op.layer == "middles.other"] == ["Clip", "Clip"]
    assert "Tanh" in [op.kind for op in program.ops() if op.layer == "middles.almost"]


@pytest.mark.parametrize(
    ("single", "meant"), [(0.2, 0.2), (1 / 6, 1 / 6), (0.01, 0.01), (1e-5, 1e-5), (3, 3)]
)
def test_constants_are_what_the_author_wrote(single, meant):
    assert simplest(float(np.float32(single))) == meant


def one_node_model(nodes, initializers, shape=("N", 6)):
    """x -> nodes -> Gemm -> y, opset 18."""
    rng = np.random.default_rng(3)
    head = numpy_helper.from_array(rng.normal(size=(3, 6)).astype(np.float32), "head.weight")
    graph = helper.make_graph(
        [*nodes, helper.make_node("Gemm", ["a", "head.weight"], ["y"], "head", transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", 3))],
        [head, *(numpy_helper.from_array(value, name) for name, value in initializers.items())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


FILES = {
    "clip-without-upper": ([helper.make_node("Clip", ["x", "low"], ["a"])], {"low": np.float32(0)}, "Clip"),
    "clip-of-keras": (
        [helper.make_node("Clip", ["x", "low", "high"], ["a"])],
        {"low": np.float32(0), "high": np.float32(3.4028235e38)},
        "Clip",
    ),
    "gelu-in-another-order": (
        [
            helper.make_node("Mul", ["x", "root"], ["s"]),
            helper.make_node("Erf", ["s"], ["e"]),
            helper.make_node("Add", ["one", "e"], ["g"]),
            helper.make_node("Mul", ["g", "x"], ["p"]),
            helper.make_node("Div", ["p", "two"], ["a"]),
        ],
        {"root": np.float32(0.70710677), "one": np.float32([1]), "two": np.float32(2)},
        "Gelu",
    ),
    "hard-swish-by-parts": (
        [
            helper.make_node("HardSigmoid", ["x"], ["h"], alpha=1 / 6),
            helper.make_node("Mul", ["h", "x"], ["a"]),
        ],
        {},
        "HardSwish",
    ),
    "default-elu": ([helper.make_node("Elu", ["x"], ["a"])], {}, "Elu"),
    "default-leaky-relu": ([helper.make_node("LeakyRelu", ["x"], ["a"])], {}, "LeakyRelu"),
    "softmax": ([helper.make_node("Softmax", ["x"], ["a"])], {}, "Softmax"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_frameworks_are_recognised_and_mean_the_same(name):
    nodes, initializers, kind = FILES[name]
    model = one_node_model(nodes, initializers)
    network = import_forward(model, frozenset({"head.weight"}))
    assert [op.kind for op in network.program.ops()] == [kind, "Fc"]
    x = 2 * np.random.default_rng(4).normal(size=(5, 6))
    logits = network.program.outputs["logits"]
    found = interpret(network.program, {**network.values, "images": x}, [logits])
    np.testing.assert_allclose(found[logits], run_model(model, {"x": x})["y"], atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "slope", "works"),
    [
        (("N", 6), (6,), True),
        (("N", 6), (1,), True),
        (("N", 4, 6), (4, 1), True),
        (("N", 4, 6), (1, 4, 1), True),
        (("N", 4, 6), (6,), False),
        (("N", 4, 6), (4, 6), False),
        (("N", 6, 6), (6,), False),
    ],
)
def test_slopes_of_files_lie_along_the_channels(shape, slope, works):
    value = np.random.default_rng(5).normal(size=slope).astype(np.float32)
    node = helper.make_node("PRelu", ["x", "slope"], ["a"], "act")
    model = one_node_model([node], {"slope": value}, shape)
    if len(shape) == 3:
        model.graph.node.pop()
        model.graph.node[0].output[0] = "y"
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    params = frozenset({"head.weight", "slope"})
    if not works:
        with pytest.raises(ExportError, match=r"node 'act' \(PRelu\).*one slope, or one for each of the"):
            import_forward(model, params)
        return
    network = import_forward(model, params)
    x = np.random.default_rng(6).normal(size=(3, *shape[1:]))
    name = network.program.outputs["logits"]
    found = interpret(network.program, {**network.values, "images": x}, [name])[name]
    np.testing.assert_allclose(found, run_model(model, {"x": x})["y"], atol=1e-6)


def test_a_clip_by_another_tensor_is_refused_by_name():
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Clip", ["x", "m"], ["a"], "limit"),
    ]
    graph = ForwardGraph(one_node_model(nodes, {}), frozenset({"head.weight"}))
    with pytest.raises(ExportError, match=r"node 'limit' \(Clip\).*bounds must be numbers"):
        RULES["Clip"].match(graph, nodes[1])
