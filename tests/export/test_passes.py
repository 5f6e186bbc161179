"""Passes on 4Conv's program: what each requires, does and ensures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
from edge_adapt.edge.program import Op, Program
from edge_adapt.export.adaptation import layer_attention
from edge_adapt.export.autodiff import differentiate
from edge_adapt.export.order import execution_order
from edge_adapt.export.passes import (
    AssignRoles,
    DropFrozenAttention,
    EliminateDeadCode,
    PassError,
    RecordedSelections,
    apply,
)

from .cases import captured
from .conv4 import LAYERS, conv4_source


@cache
def whole() -> Program:
    source = conv4_source()
    attention = layer_attention(source.attention, source.settings)
    return differentiate(captured(source.module, (1, 28, 28)).program, attention, 3)


def names(program: Program, role: str) -> set[str]:
    return {tensor.name for tensor in program.with_role(role)}


def test_prediction_is_dead_code_elimination_to_the_logits():
    result = apply(EliminateDeadCode((whole().outputs["logits"],)), whole())
    program = result.program
    assert result.changed
    assert set(program.sections) == {"forward"}
    assert program.inputs == {"images": "images"}
    assert {op.outputs[1:] for op in program.ops() if op.kind == "GroupNorm"} == {("", "")}
    assert not program.with_role("saved")
    assert len(program.with_role("param")) == 2 * len(LAYERS)


def test_freezing_a_layer_is_dropping_its_gradients():
    gradients = [name for layer in whole().layers[-2:] for name in layer.grads]
    program = apply(EliminateDeadCode(("loss", *gradients)), whole()).program
    assert {op.kind for op in program.ops(("backward",))} == {
        "FcInputGrad", "FcWeightGrad", "BiasGrad", "Reshape", "MaxPoolGrad", "MaskGrad",
        "ScaleGrad",
    }  # fmt: skip
    assert names(program, "gradient") == set(gradients)
    assert names(program, "saved") == {
        "flatten", "d::fc", "pool4::argmax", "relu4::mask", "norm4::x_hat",
    }  # fmt: skip


def test_a_second_elimination_changes_nothing():
    elimination = EliminateDeadCode(("loss", "grad::conv3.weight"))
    once = apply(elimination, whole()).program
    assert apply(elimination, once) == type(apply(elimination, once))(once, False)


def test_elimination_refuses_what_nothing_writes():
    with pytest.raises(PassError, match=r"cannot keep \['nothing'\]"):
        apply(EliminateDeadCode(("nothing",)), whole())


def test_frozen_layers_lose_their_attention_and_keep_their_gradients():
    updated = frozenset({"conv4", "norm4", "fc"})
    program = apply(DropFrozenAttention(updated), whole()).program
    assert {op.layer for op in program.ops(("attention",))} == {"conv4", "norm4"}
    assert {name.split("::")[1] for name in names(program, "attention-param")} == {"conv4", "norm4"}
    assert names(program, "gradient") == names(whole(), "gradient")
    (frozen,) = [op for op in program.ops() if op.outputs == ("grad::conv3.weight",)]
    (scaled,) = [op for op in program.ops() if op.outputs == ("grad::conv4.weight",)]
    assert frozen.inputs == ("pool2", "d::conv3", "sample_weight", "", "")
    assert scaled.inputs == ("pool3", "d::conv4", "sample_weight", "fw::conv4", "bw::conv4")


def test_dropping_attention_needs_layers_that_exist():
    with pytest.raises(PassError, match=r"unknown layers: \['conv9'\]"):
        apply(DropFrozenAttention(frozenset({"conv9"})), whole())


def test_recorded_selections_are_inputs_of_every_attention():
    program = apply(RecordedSelections(), whole()).program
    keeps = {f"keep::{layer}::{side}" for layer in LAYERS[:-1] for side in ("fw", "bw")}
    assert keeps <= set(program.inputs)
    assert {op.inputs[5] for op in program.ops(("attention",))} == keeps
    assert program.tensors["keep::conv1::fw"].shape == ("N", 1)
    with pytest.raises(PassError, match="recorded already"):
        apply(RecordedSelections(), program)


def test_roles_follow_who_reads():
    assert apply(AssignRoles(), whole()).changed is False
    saved = names(whole(), "saved")
    assert {"pool1", "norm1::x_hat", "norm1::inv_std", "relu1::mask", "pool1::argmax", "flatten"} <= saved
    assert saved.isdisjoint({"conv1", "norm1", "relu1", "images", "fc"})


def test_a_pass_that_breaks_its_promise_is_caught():
    @dataclass(frozen=True)
    class Careless(EliminateDeadCode):
        def call(self, program: Program) -> Program:
            return program

    with pytest.raises(PassError, match="dead values remain"):
        apply(Careless(("loss",)), whole())


def test_attention_runs_as_soon_as_its_input_exists():
    order = [op.outputs[0] for op in execution_order(whole())]
    assert order.index("fw::conv2") == order.index("pool1") + 1 or order.index("fw::conv2") < order.index(
        "norm2"
    )
    assert order.index("bw::conv4") == order.index("d::conv4") + 1
    assert order.index("grad::conv4.weight") < order.index("d::conv3")


def test_a_program_that_reads_what_nothing_writes_has_no_order():
    broken = replace(whole(), sections={"forward": (Op("Relu", ("nowhere",), ("relu1", ""), "relu1"),)})
    with pytest.raises(ValueError, match="Relu of layer 'relu1' reads what nothing writes"):
        execution_order(broken)
