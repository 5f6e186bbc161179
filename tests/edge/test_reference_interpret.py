"""A whole program, interpreted, against the same network in torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from edge_adapt.edge.errors import BundleError
from edge_adapt.edge.program import Op, Program
from edge_adapt.edge.reference.interpret import interpret, needed

from .kernel_cases import Array, relative_error
from .programs import Net, conv_program, random_weights

torch = pytest.importorskip("torch")
NET = Net(size=10, channels=8, blocks=2)


def values_of(program: Program, samples: int = 6) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    given = dict(random_weights(program).tensors)
    given["images"] = rng.normal(size=(samples, NET.colours, NET.size, NET.size))
    given["labels"] = np.arange(samples) % NET.classes
    given["sample_weight"] = np.full(samples, 1 / samples)
    given["class_mask"] = np.ones(NET.classes)
    return given


def torch_network(values: dict[str, Array]) -> tuple[Any, dict[str, Any]]:
    """Return the logits and the parameters they depend on."""
    params = {
        name: torch.tensor(value.astype(np.float64), requires_grad=True)
        for name, value in values.items()
        if "." in name
    }
    x = torch.tensor(values["images"])
    for block in range(1, NET.blocks + 1):
        conv, norm = f"conv{block}", f"norm{block}"
        x = torch.nn.functional.conv2d(x, params[f"{conv}.weight"], params[f"{conv}.bias"], padding=1)
        x = torch.nn.functional.group_norm(
            x, NET.groups, params[f"{norm}.scale"], params[f"{norm}.bias"], 1e-5
        )
        x = torch.nn.functional.max_pool2d(torch.relu(x), 2)
    return torch.nn.functional.linear(x.flatten(1), params["fc.weight"], params["fc.bias"]), params


def test_the_whole_program_matches_torch() -> None:
    program = conv_program(NET)
    values = values_of(program)
    names = [param for layer in program.layers for param in layer.params]
    wanted = ["logits", "loss", *(f"grad::{name}" for name in names), *(f"updated::{name}" for name in names)]
    result = interpret(program, values, wanted, np.float64)
    logits, params = torch_network(values)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(values["labels"]))
    loss.backward()
    assert set(params) == set(names)
    np.testing.assert_allclose(result["logits"], logits.detach().numpy(), atol=1e-11)
    assert result["loss"][0] == pytest.approx(float(loss.detach()), rel=1e-12)
    scale = max(float(p.grad.abs().max()) for p in params.values())
    for name, param in params.items():
        np.testing.assert_allclose(result[f"grad::{name}"], param.grad.numpy(), atol=1e-11 * scale)
        stepped = param.detach().numpy() - np.float64(np.float32(0.1)) * param.grad.numpy()
        np.testing.assert_allclose(result[f"updated::{name}"], stepped, atol=1e-11)


def test_single_precision_stays_close_to_double() -> None:
    program = conv_program(NET)
    values, wanted = values_of(program), ["logits", "grad::conv1.weight"]
    single, double = (interpret(program, values, wanted, dtype) for dtype in (np.float32, np.float64))
    for name in wanted:
        assert single[name].dtype == np.float32
        assert relative_error(single[name], double[name]) < 1e-4


def test_attention_weighs_each_samples_gradient() -> None:
    """The gradient of all samples is the sum of single ones, each weighed by its own gamma."""
    program = conv_program(replace(NET, rho=0.3))
    plain = conv_program(NET)
    values = values_of(program)
    wanted = ["grad::conv2.weight", "fw::conv2", "bw::conv2"]
    whole = interpret(program, values, wanted, np.float64)
    total = np.zeros_like(whole["grad::conv2.weight"])
    for sample in range(6):
        single = {k: v[sample : sample + 1] if k in ("images", "labels") else v for k, v in values.items()}
        single["sample_weight"] = np.ones(1)
        gradient = interpret(plain, _known(plain, single), ["grad::conv2.weight"], np.float64)[
            "grad::conv2.weight"
        ]
        gamma = whole["bw::conv2"][sample][:, None] * whole["fw::conv2"][sample]
        total += gamma[:, :, None, None] * gradient / 6
    assert (whole["fw::conv2"] == 0).any()
    np.testing.assert_allclose(whole["grad::conv2.weight"], total, atol=1e-12)


def _known(program: Program, values: dict[str, Array]) -> dict[str, Array]:
    return {name: value for name, value in values.items() if name in program.tensors}


def test_prediction_runs_the_forward_section_alone() -> None:
    program = conv_program(NET)
    kinds = [op.kind for op in needed(program, values_of(program), ["logits"])]
    assert kinds == [*["Conv", "GroupNorm", "Relu", "MaxPool"] * 2, "Reshape", "Fc"]


def test_a_given_tensor_is_not_computed_again() -> None:
    program = conv_program(NET)
    values = {**values_of(program), "flat": np.zeros((6, NET.channels * 4))}
    logits = interpret(program, values, ["logits"])["logits"]
    np.testing.assert_array_equal(logits, np.broadcast_to(values["fc.bias"], logits.shape))


def test_a_missing_tensor_is_named() -> None:
    program = conv_program(NET)
    values = values_of(program)
    del values["conv2.bias"]
    with pytest.raises(BundleError, match=r"tensor 'conv2\.bias' is neither given nor computed"):
        interpret(program, values, ["logits"])


def test_operations_that_wait_for_each_other_are_refused() -> None:
    program = conv_program(NET)
    circle = (Op("Relu", ("z1",), ("r1", ""), "a"), Op("Relu", ("r1",), ("z1", ""), "b"))
    broken = replace(program, sections={"forward": circle})
    with pytest.raises(BundleError, match="Relu of layer 'a' waits for its own result"):
        interpret(broken, {}, ["r1"])


def test_the_step_chooses_the_row_of_the_step_sizes() -> None:
    program = conv_program(NET)
    values = values_of(program)
    values["alpha"] = np.zeros_like(values["alpha"])
    values["alpha"][3] = 0.5
    first, fourth = (interpret(program, values, ["updated::fc.bias"], step=step) for step in (0, 3))
    np.testing.assert_array_equal(first["updated::fc.bias"], values["fc.bias"])
    assert not np.allclose(fourth["updated::fc.bias"], values["fc.bias"])
